"""Networks of mmsegmentation and mmdetection in integers: the tool, its files, and the outputs."""

import copy
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from test_inference_apis import train
from test_integer_models import tool  # noqa: F401  (a fixture)

from mmwcc.compression import compress_model
from mmwcc.inference import IntegerMapConv2d, QuantizedMap, to_integer
from mmwcc.maps import add_map_scales
from mmwcc.post_training import calibrate
from mmwcc.presets import preset
from mmwcc.utils import build_model


@pytest.fixture(scope='module')
def trained(segmentor_config, tmp_path_factory):
    """Return a config that quantizes every layer, and its checkpoint after two iterations."""
    folder = tmp_path_factory.mktemp('int8')
    config = Config(copy.deepcopy(segmentor_config.to_dict()))
    config.model.compression = preset('quant_w8a8')
    head = dict(in_channels=48, in_index=2, channels=8, num_convs=1, norm_cfg=dict(type='BN'))
    config.model.auxiliary_head = dict(head, type='FCNHead', num_classes=9, align_corners=False)
    config.test_dataloader.dataset.pipeline = config.train_pipeline  # images without files
    config.work_dir = str(folder / 'work')
    config.dump(folder / 'trained.py')
    return folder / 'trained.py', train(config)


@pytest.fixture(scope='module')
def converted(tool, trained, tmp_path_factory):  # noqa: F811
    config, checkpoint = trained
    out = tmp_path_factory.mktemp('maps') / 'out.pth'
    tool.main([str(config), checkpoint, str(out), '--maps', '--images', '2'])
    return out


def simulated(trained, integer):
    """Return the trained model with the scales that an integer model has."""
    from mmseg.apis import init_model

    config, checkpoint = trained
    model = init_model(str(config), checkpoint, device='cpu')
    scales = add_map_scales(model)
    for name in scales.plan.own:
        quantizer, grid = scales.of(name), integer.map_scales.of(name).value()
        quantizer.calibrate(torch.tensor([grid.step * grid.high]))
        quantizer.signed.fill_(grid.low < 0)
        quantizer.clip_alpha.data.fill_(grid.step * grid.high)
    model.load_state_dict(model.state_dict())  # what was remembered of the buffers is read again
    return model.eval()


def test_mmseg_loads_what_the_tool_writes(converted, trained):
    from mmseg.apis import inference_model, init_model

    integer = init_model(str(converted.with_suffix('.py')), str(converted), device='cpu')
    kinds = [type(module) for module in integer.modules()]
    assert kinds.count(IntegerMapConv2d) > 20
    compression = Config.fromfile(converted.with_suffix('.py')).model.compression
    assert compression.maps == dict(input_shape=[128, 128]) and compression.integer is True
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    other = simulated(trained, integer)
    got, expected = (inference_model(model, image).seg_logits.data for model in (integer, other))
    assert (got - expected).abs().mean() < 0.01 * expected.std()
    stamp = torch.load(converted, weights_only=False)['meta']['mmwcc']
    assert [entry['type'] for entry in stamp['layers'].values()].count('IntegerMapConv2d') > 20


def test_heads_that_only_training_uses_are_left_out(converted, trained):
    config = Config.fromfile(converted.with_suffix('.py'))
    assert config.model.auxiliary_head is None
    before, after = (
        torch.load(path, weights_only=False)['state_dict'] for path in (trained[1], converted)
    )
    assert any(key.startswith('auxiliary_head') for key in before)
    assert not any(key.startswith('auxiliary_head') for key in after)


def test_the_tool_says_how_long_floats_take(tool, converted):  # noqa: F811
    from mmseg.apis import init_model

    model = init_model(str(converted.with_suffix('.py')), str(converted), device='cpu')
    said = tool.float_time(model, (64, 96))
    assert re.match(r'floating point takes \d+\.\d% of the time at 64x96: \w+ \d+\.\d%', said), said
    model.roi_head = None
    assert 'not measured. RawOutputs: the first stage' in tool.float_time(model, (64, 96))


def test_the_tool_says_what_is_missing(tool, trained, tmp_path, capsys):  # noqa: F811
    config, checkpoint = trained
    arguments = [str(config), checkpoint, str(tmp_path / 'out.pth')]
    with pytest.raises(SystemExit, match='does not fit the model of .*it lacks map_scales'):
        tool.main([*arguments, '--cfg-options', 'model.compression.maps=True'])
    with pytest.raises(SystemExit, match='has no `train_dataloader`'):
        tool.main([*arguments, '--maps', '--cfg-options', 'train_dataloader=None'])
    with pytest.raises(SystemExit):
        tool.main([*arguments, '--maps', '--images', '0'])
    assert '--images must be at least 1, got 0' in capsys.readouterr().err


def outputs(model, x):
    with torch.no_grad():
        result = model(x, mode='tensor')
    flat = []
    for level in result:
        flat += level if isinstance(level, (list, tuple)) else [level]
    return flat


def test_a_detector_of_mmdet(detector_config):
    config = Config(copy.deepcopy(detector_config.to_dict()))
    config.model = config.model.copy()
    config.model.compression = preset('quant_w8a8')
    torch.manual_seed(0)
    model = build_model(config).eval()
    batches = [torch.randn(1, 3, 96, 128) for _ in range(2)]
    forward = lambda model, x: model(x, mode='tensor')  # noqa: E731
    calibrate(model, batches, forward=forward)
    add_map_scales(model)
    calibrate(model, batches, forward=forward, again=False)
    integer = copy.deepcopy(model)
    report = to_integer(integer, verbose=False)
    assert sum(layer.after == 'IntegerMapConv2d' for layer in report) > 15
    for size in ((96, 128), (64, 96)):
        x = torch.randn(1, 3, *size)
        for got, expected in zip(outputs(integer, x), outputs(model, x), strict=True):
            assert got.shape == expected.shape
            # Untrained layers spread the few levels that differ at ties.
            assert (got - expected).abs().mean() < 0.05 * expected.std()


def test_modules_in_cpp_get_values():
    ops = pytest.importorskip('mmcv.ops')
    from torch import nn

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.a, self.b = (nn.Conv2d(size, 4, 1) for size in (3, 4, 4))
            self.last, self.pool = nn.Conv2d(4, 4, 1), ops.RoIAlign(2)

        def forward(self, x):
            x = self.a(self.first(x))
            return self.last(self.pool(x, x.new_tensor([[0, 0, 0, 8, 8]]))), self.b(x)

    model = Pooled().eval()
    compress_model(model, preset('quant_w8a8'), verbose=False)
    batches = [torch.randn(1, 3, 16, 16)]
    calibrate(model, batches)
    add_map_scales(model, (16, 16))
    calibrate(model, batches, again=False)
    integer = copy.deepcopy(model)
    to_integer(integer, verbose=False)
    seen = []
    integer.pool.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    integer.b.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        for got, expected in zip(integer(batches[0]), model(batches[0]), strict=True):
            torch.testing.assert_close(got, expected, rtol=0.02, atol=0.02)
    assert [isinstance(x, QuantizedMap) for x in seen] == [False, True]
