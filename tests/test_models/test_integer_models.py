"""From a compressed checkpoint to an integer one with the tool, and into the inference APIs."""

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from test_inference_apis import train

from mmwcc.inference import IntegerLayer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def tool():
    path = ROOT / 'tools' / 'deployment' / 'to_integer.py'
    spec = importlib.util.spec_from_file_location('to_integer', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def converted(tool, segmentor_config, tmp_path_factory):
    """Return the folder with `out.pth`, `out.py` and the config they were made from, and what the
    tool printed.
    """
    folder = tmp_path_factory.mktemp('converted')
    segmentor_config.dump(folder / 'trained.py')
    checkpoint = train(segmentor_config)
    tool.main([str(folder / 'trained.py'), checkpoint, str(folder / 'new' / 'out.pth')])
    return folder, checkpoint


def test_mmseg_loads_what_the_tool_writes(converted, segmentor_config):
    from mmseg.apis import inference_model, init_model

    folder, checkpoint = converted
    integer = init_model(
        str(folder / 'new' / 'out.py'), str(folder / 'new' / 'out.pth'), device='cpu'
    )
    trained = init_model(copy.deepcopy(segmentor_config), checkpoint, device='cpu')
    assert type(integer) is type(trained)
    assert integer.dataset_meta == trained.dataset_meta
    assert sum(isinstance(module, IntegerLayer) for module in integer.modules()) == 15
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    got, expected = (inference_model(model, image).seg_logits.data for model in (integer, trained))
    assert (got - expected).abs().mean() < 0.02 * expected.std()


def test_the_checkpoint_is_smaller_and_says_what_it_is(converted):
    folder, checkpoint = converted
    assert (folder / 'new' / 'out.pth').stat().st_size < 0.5 * Path(checkpoint).stat().st_size
    loaded = torch.load(folder / 'new' / 'out.pth', weights_only=False)
    assert set(loaded) == {'meta', 'state_dict'}
    stamp = loaded['meta']['mmwcc']
    assert stamp['compression']['integer'] is True
    kinds = [layer['type'] for layer in stamp['layers'].values()]
    assert kinds.count('IntegerWaveletCompressedConv2d') == 15


def test_the_tool_prints_table_and_sizes(tool, segmentor_config, tmp_path, capsys):
    segmentor_config.dump(tmp_path / 'trained.py')
    tool.main([str(tmp_path / 'trained.py'), train(segmentor_config), str(tmp_path / 'out.pth')])
    output = capsys.readouterr().out
    assert 'IntegerWaveletCompressedConv2d' in output and ' bytes before, ' in output
    assert output.splitlines()[-1] == f'wrote {tmp_path / "out.pth"} and {tmp_path / "out.py"}'
    with pytest.raises(SystemExit, match='describes an integer model already'):
        tool.main(
            [str(tmp_path / 'out.py'), str(tmp_path / 'out.pth'), str(tmp_path / 'again.pth')]
        )


def test_errors(tool, segmentor_config, tmp_path, capsys):
    segmentor_config.dump(tmp_path / 'trained.py')
    config, checkpoint = str(tmp_path / 'trained.py'), train(segmentor_config)
    for arguments, message in [
        (['missing.py', checkpoint], 'config file missing.py does not exist'),
        ([config, str(tmp_path / 'missing.pth')], 'missing.pth does not exist'),
        (
            [config, checkpoint, '--cfg-options', 'model.decode_head.num_classes=5'],
            'does not fit the model',
        ),
        (
            [
                config,
                checkpoint,
                '--cfg-options',
                'model.compression.act_quant.bits=16',
                'model.compression.weight_quant.bits=16',
            ],
            'must have 1x1 layers',
        ),
    ]:
        with pytest.raises(SystemExit, match=message):
            tool.main([*arguments[:2], str(tmp_path / 'out.pth'), *arguments[2:]])
    with pytest.raises(SystemExit):
        tool.main([config, checkpoint, 'out'])
    assert 'OUT must end in .pth, got out' in capsys.readouterr().err
