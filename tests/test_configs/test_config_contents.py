"""What the shipped configs say agrees with their names, with each other and with the metafiles."""

import math
import re
from pathlib import Path

import pytest
import yaml
from fabricated import CONFIGS, config_files, drop_pretrained, read

NAMES = config_files()
ROOT = CONFIGS.parent
TRAINING_IMAGES = {'cityscapes': 2975, 'voc12aug': 10582}

_NAME = re.compile(
    r'(?P<network>[^_]+_[^_]+)_(?P<method>dense|quant|wcc)(?:-(?:fp|w(?P<w>\d+)a(?P<a>\d+)))?'
    r'(?:-k(?P<keep>12_5|\d+))?(?:-[a-z]+)?_(?P<schedule>[^_]+)_(?P<data>[^_]+)-(?P<size>\d+x\d+)'
)


def parts(name: str) -> dict[str, str]:
    match = _NAME.fullmatch(Path(name).stem)
    assert match, (
        f'{name} is not called '
        f'{{network}}_{{method}}-{{bits}}-{{keep}}_{{schedule}}_{{data}}-{{size}}.py'
    )
    return match.groupdict()


def amounts(cfg) -> tuple[int, int, float]:
    """Return bits of weights, bits of activations and keep_ratio; what is not compressed counts as
    whole.
    """
    compression = cfg.model.get('compression') or {}
    quantizers = [compression.get(role) or {} for role in ('weight_quant', 'act_quant')]
    return (
        *(quantizer.get('bits', 32) for quantizer in quantizers),
        (compression.get('pointwise') or {}).get('keep_ratio', 1.0),
    )


@pytest.mark.parametrize('name', [name for name in NAMES if name.startswith('wcc/')])
def test_name_says_what_it_is(name):
    cfg, said = read(name), parts(name)
    keep = float(said['keep'].replace('_', '.')) / 100 if said['keep'] else 1.0
    assert amounts(cfg) == (int(said['w'] or 32), int(said['a'] or 32), keep)
    assert (cfg.model.type == 'mmwcc.CompressedModel') == (said['method'] != 'dense')
    assert cfg.model.get('compression') == cfg.get('compression')
    assert cfg.default_scope == ('mmdet' if said['data'] == 'coco' else 'mmseg')
    if said['schedule'].endswith('i'):
        assert cfg.train_cfg.max_iters == int(said['schedule'][:-1])
    epochs = re.search(r'(\d+)e$', said['schedule'])
    if epochs:
        assert cfg.train_dataloader.batch_size == 4 and cfg.auto_scale_lr.base_batch_size == 16
        assert cfg.train_cfg.max_iters == math.ceil(
            int(epochs[1]) * TRAINING_IMAGES[said['data']] / 16
        )


@pytest.mark.parametrize('name', NAMES)
def test_schedule_and_hooks(name):
    cfg = read(name)
    assert cfg.default_hooks.compression_check.type == 'mmwcc.CompressionCheckHook'
    assert cfg.default_hooks.random_state.type == 'mmwcc.RandomStateHook'
    length = cfg.train_cfg.get('max_iters') or cfg.train_cfg.max_epochs
    assert cfg.param_scheduler[-1].end == length
    schedule = cfg.default_hooks.get('compression_schedule')
    if schedule is not None:
        from mmwcc.engine.hooks import CompressionScheduleHook

        hook = CompressionScheduleHook(
            **{key: value for key, value in schedule.items() if key != 'type'}
        )
        assert all(part.end < length for part in hook.schedules.values())
        assert hook.values_at(length)['keep_ratio'] == amounts(cfg)[2]
    if cfg.model.type == 'mmwcc.CompressedModel':
        of_clips = cfg.quantizer_paramwise.custom_keys
        assert {**cfg.optim_wrapper.paramwise_cfg.custom_keys, **of_clips} == (
            cfg.optim_wrapper.paramwise_cfg.custom_keys
        )


@pytest.mark.parametrize('name', [name for name in NAMES if re.search('_(quant|wcc)-', name)])
def test_starts_where_the_step_before_ends(name):
    cfg = read(name)
    assert not cfg.model.get('pretrained'), (
        'pretrained weights would be downloaded and then replaced'
    )
    if cfg.load_from.startswith('https://download.openmmlab.com/'):
        return
    folder, stem, file = cfg.load_from.split('/')
    assert folder == 'work_dirs'
    before = read((Path(name).parent / f'{stem}.py').as_posix())
    if 'max_iters' in before.train_cfg:
        assert file == f'iter_{before.train_cfg.max_iters}.pth'
    else:
        assert file == f'epoch_{before.train_cfg.max_epochs}.pth'
    now, then = amounts(cfg), amounts(before)
    drop_pretrained(before.model)
    drop_pretrained(cfg.model)
    assert now != then and all(ours <= theirs for ours, theirs in zip(now, then, strict=True))
    for key in (
        'backbone',
        'neck',
        'decode_head',
        'auxiliary_head',
        'bbox_head',
        'generator',
        'decoder',
        'pose_net',
    ):
        assert cfg.model.get(key) == before.model.get(key)


def test_file_names_are_unique():
    """``mim train mmwcc NAME.py`` finds a config by its bare name."""
    stems = [Path(name).name for name in NAMES]
    assert len(stems) == len(set(stems))


def metafiles() -> list[Path]:
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    return [ROOT / path for path in index['Import']]


def test_metafiles_list_every_config_and_no_other():
    listed = [
        model['Config']
        for path in metafiles()
        for model in yaml.safe_load(path.read_text())['Models']
    ]
    assert sorted(listed) == sorted(f'configs/{name}' for name in NAMES)


@pytest.mark.parametrize('path', metafiles(), ids=lambda path: path.parent.name)
def test_metafile(path):
    metafile = yaml.safe_load(path.read_text())
    collections = {collection['Name']: collection for collection in metafile['Collections']}
    for collection in collections.values():
        assert (ROOT / collection['README']).is_file()
    for model in metafile['Models']:
        assert model['Name'] == Path(model['Config']).stem
        assert model['In Collection'] in collections
        check_metadata(model, read(model['Config'].removeprefix('configs/')))


def check_metadata(model: dict, cfg) -> None:
    """Check the numbers that a metafile repeats."""
    metadata = model['Metadata']
    weight_bits, act_bits, keep_ratio = (
        ('allocated',) * 3 if '-alloc' in model['Name'] else amounts(cfg)
    )
    assert (metadata.get('Weight Bits', 32), metadata.get('Activation Bits', 32)) == (
        weight_bits,
        act_bits,
    )
    assert metadata.get('Keep Ratio', 1.0) == keep_ratio
    assert metadata.get('Iterations') == cfg.train_cfg.get('max_iters')
    assert metadata.get('Epochs') == cfg.train_cfg.get('max_epochs')
    assert metadata['Batch Size'] % cfg.train_dataloader.batch_size == 0


def test_openmim_reads_the_model_index():
    modelindex = pytest.importorskip('modelindex.load_model_index', reason='comes with openmim')
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    assert {model.name for model in index.models} == {Path(name).stem for name in NAMES}


def test_no_loss_has_both_class_weights_and_avg_non_ignore():
    """Onedl-mmsegmentation 1.4.2 fails with both. Where every pixel has a class, the weights alone
    give the same loss.
    """
    both = {'class_weight', 'avg_non_ignore'}
    words = {path: set(re.findall(r'\w+', path.read_text())) for path in CONFIGS.rglob('*.py')}
    assert words and not [path.name for path, found in words.items() if both <= found]


def test_first_wavelet_step_calibrates_on_coefficients():
    """From quant-* to wcc-*, clips of 1x1 inputs change their meaning: coefficients are signed and
    larger.
    """
    import torch
    from torch import nn

    from mmwcc.compression import compress_model

    def build(method: str) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)
        )
        cfg = read(f'wcc/deeplabv3plus_mobilenetv2-os16_{method}_400i_camvid-256x256.py')
        compress_model(model, cfg.compression, verbose=False)
        return model.train()

    x = torch.randn(2, 3, 32, 32)
    before = build('quant-w8a8')
    before(x)
    step = build('wcc-w8a8-k50')
    step.load_state_dict(before.state_dict())
    step(x)
    fresh = build('wcc-w8a8-k50')
    fresh(x)
    assert bool(step[2].act_quant.signed)
    torch.testing.assert_close(step[2].act_quant.clip_alpha, fresh[2].act_quant.clip_alpha)
