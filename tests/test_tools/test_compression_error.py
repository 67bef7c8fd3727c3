"""tools/analysis_tools/compression_error.py."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmengine')
from mmengine.config import Config  # noqa: E402
from mmengine.registry import MODELS, init_default_scope  # noqa: E402

ROOT = Path(__file__).parents[2]
DEMO = str(
    ROOT
    / 'configs'
    / 'wcc'
    / 'demo'
    / 'deeplabv3plus_mobilenetv2-0.5x_dense_180i_street-192x128.py'
)
CLASSIFIER = """
loader = dict(dataset=dict(type='mmwcc.CIFAR10', data_root=DATA, split='test',
                           pipeline=[dict(type='mmwcc.PackClsInputs')]))
test_dataloader = loader
model = dict(
    type='mmwcc.ImageClassifier', data_preprocessor=dict(type='mmwcc.ClsDataPreprocessor',
        mean=[127.5] * 3,
                                                         std=[127.5] * 3),
    backbone=dict(type='mmwcc.WaveletNetCifar', depth=4, widths=(8, 16, 32), kappa=(0, 3, 3)),
    neck=dict(type='mmwcc.GlobalAveragePooling'),
    head=dict(type='mmwcc.LinearClsHead', num_classes=10, in_channels=32))
"""


@pytest.fixture(scope='module')
def tool():
    path = ROOT / 'tools' / 'analysis_tools' / 'compression_error.py'
    spec = importlib.util.spec_from_file_location('compression_error', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def save_untrained(config: str, path: Path) -> str:
    """Write a checkpoint of the model of a config as it is built."""
    cfg = Config.fromfile(config)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), path)
    return str(path)


@pytest.fixture
def classifier(tmp_path):
    torch.randint(256, (3 * 3073,), dtype=torch.uint8).numpy().reshape(3, 3073).clip(max=9).tofile(
        tmp_path / 'test_batch.bin'
    )
    config = tmp_path / 'classifier.py'
    config.write_text(CLASSIFIER.replace('DATA', repr(str(tmp_path))))
    return str(config), save_untrained(config, tmp_path / 'classifier.pth')


def test_files_and_table(tool, classifier, tmp_path, capsys):
    out = tmp_path / 'new' / 'folder'
    tool.main(
        [
            *classifier,
            '--images',
            '2',
            '--bits',
            '1',
            '2',
            '--keep-ratios',
            '0.25',
            '--out-dir',
            str(out),
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith('1x1 convolutions, 2 images; in brackets: layers')
    assert (
        lines[2].startswith('| method | effective bits | all layers (') and '| 32x32 (' in lines[2]
    )
    assert [line.split(' | ')[:2] for line in lines[4:7]] == [
        ['| quantization, 1 bit', '1'],
        ['| quantization, 2 bits', '2'],
        ['| wcc, 8 bits, 25 % kept', '2'],
    ]
    assert (out / 'compression_error.png').read_bytes().startswith(b'\x89PNG')
    rows = (out / 'compression_error.csv').read_text().splitlines()
    assert rows[0].startswith('layer,height,width,method') and rows[-1].startswith(
        'mean,,,wcc,8,0.25,2,'
    )


@pytest.mark.slow
def test_segmentation(tool, tmp_path, capsys):
    pytest.importorskip('mmseg', reason='the demo needs mmsegmentation', exc_type=ImportError)
    checkpoint = save_untrained(DEMO, tmp_path / 'demo.pth')
    tool.main(
        [
            DEMO,
            checkpoint,
            '--images',
            '1',
            '--keep-ratios',
            '0.5',
            '--bits',
            '4',
            '--out-dir',
            str(tmp_path),
        ]
    )
    assert '| wcc, 8 bits, 50 % kept | 4 |' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--images', '0'], '--images must be at least 1, got 0'),
        (['--bits', '0', '4'], r'--bits must be in 1 ... 16, got \[0, 4\]'),
        (['--keep-ratios', '0'], r'keep_ratio must be in \(0, 1\], got 0.0'),
        (['--levels', '0'], 'levels must be at least 1'),
        (['--wavelet', 'none'], "wavelet must be a discrete wavelet of PyWavelets, got 'none'"),
        (['--coefficient-bits', '1'], '--coefficient-bits must be in 2 ... 16 or 32, got 1'),
    ],
)
def test_bad_arguments_are_refused(tool, arguments, message, capsys):
    with pytest.raises(SystemExit, match='2'):
        tool.parse_args(['c.py', 'x.pth', *arguments])
    assert re.search(message, capsys.readouterr().err)


def test_bad_files_are_one_line(tool, classifier):
    with pytest.raises(
        SystemExit, match='compression_error: The config file missing.py does not exist'
    ):
        tool.main(['missing.py', classifier[1]])
    with pytest.raises(
        SystemExit, match='compression_error: The checkpoint missing.pth does not exist'
    ):
        tool.main([classifier[0], 'missing.pth'])
