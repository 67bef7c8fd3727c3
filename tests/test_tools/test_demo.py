"""What tools/demo.py computes; training itself is a run, not a test."""

import importlib.util
import sys
from pathlib import Path

import pytest
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.cost import count_cost

pytest.importorskip('mmengine', reason='the demo trains with it')
TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def load(path: str):
    spec = importlib.util.spec_from_file_location(f'mmwcc_{Path(path).stem}', TOOLS / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class Net(nn.Sequential):
    """Three convolutions, two of them 1x1, on a map that the second one halves."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 1, stride=2), nn.Conv2d(8, 2, 1)
        )

    def forward(self, x, mode='tensor'):
        return super().forward(x)


@pytest.fixture
def demo():
    return load('demo.py')


@pytest.fixture
def model():
    model = Net()
    compress_model(
        model,
        dict(
            pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.25),
            weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=4),
            act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
        ),
        verbose=False,
    )
    return model


def test_the_share_that_is_kept_and_the_megabytes_are_those_of_the_package(model):
    dense, compressed = (
        count_cost(network, (8, 8), convention='paper') for network in (Net(), model)
    )
    assert dense.kept_share == 1.0
    # 4 * 8 multiplications a pixel at a quarter, 8 * 2 at all of them, both on the 4x4 map.
    assert compressed.kept_share == (0.25 * 32 + 16) / 48
    clips = 2 * 4  # one of the weights, one of the activations, 4 bytes each
    assert compressed.total.weight_bytes == dense.total.weight_bytes + clips - 32 * 3.5


def test_points_are_named_and_lined_up(demo, model):
    assert (demo.point_name(Net()), demo.point_name(model)) == ('dense', '4/8 + WCC 25 %')
    points = [
        demo.Point('dense', 62.5, 1.0, 2.6e12, 2.94, 251.0, []),
        demo.Point('8/8 + WCC 12.5 %', 9.0, 0.125, 64e9, 0.79, 5.0, []),
    ]
    assert demo.table(points).splitlines() == [
        'network            mIoU  1x1 MACs    BOPs  weights   time',
        '---------------------------------------------------------',
        'dense             62.50   100.0 %  2600 G  2.94 MB  251 s',
        '8/8 + WCC 12.5 %   9.00    12.5 %    64 G  0.79 MB    5 s',
    ]


def test_every_run_of_the_demo_has_its_config(demo):
    for name in demo.RUNS:
        assert (demo.CONFIGS / f'{demo.NETWORK}_{name}_{demo.DATA}.py').is_file()


def test_scenes_are_rendered_before_the_first_run(demo, capsys):
    from mmwcc.datasets.street import synthetic_street

    config = demo.read_config(demo.RUNS[0], Path('unused'))
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.dataset.update(length=2, img_scale=(32, 24))
    demo.render_scenes(config)
    assert capsys.readouterr().out.count('Rendering 2 street scenes') == 2
    rendered = [key for key in synthetic_street._SCENES if key[2] == (32, 24)]
    assert len(rendered) == 4


def test_checkpoints_of_the_demo_hold_what_resuming_needs(demo):
    for name in demo.RUNS:
        hook = demo.read_config(name, Path('unused')).default_hooks.checkpoint
        assert hook.get('save_optimizer', True) and hook.get('save_param_scheduler', True)


def test_every_run_of_the_demo_writes_its_own_log(demo, tmp_path):
    from mmengine.registry import VISUALIZERS, init_default_scope

    init_default_scope('mmseg')
    folders = set()
    for name in demo.RUNS[:2]:
        config = demo.read_config(name, tmp_path)
        visualizer = VISUALIZERS.build({**config.visualizer, 'save_dir': config.work_dir})
        visualizer.add_scalar('mIoU', 1.0)
        folders |= {path.parts[-3] for path in tmp_path.rglob('scalars.json')}
    assert folders == set(demo.RUNS[:2])
