"""Whole networks in integers against the networks whose maps are rounded in floating point."""

import copy
import io
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.cost import count_cost
from mmwcc.inference import IntegerMapConv2d, IntegerWaveletCompressedConv2d, to_integer
from mmwcc.inference.map_grids import MapGrids
from mmwcc.kernels.int8_conv import is_exact
from mmwcc.layers import QuantConv2d
from mmwcc.maps import MAP_SCALES, add_map_scales
from mmwcc.model_tree import LayerState, compressed_layers
from mmwcc.post_training import calibrate

INT8 = dict(
    pointwise=dict(type='mmwcc.QuantConv2d'),
    other=dict(type='mmwcc.QuantConv2d'),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', per_channel=True),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer'),
)


def block(cin, cout, kernel=1, act=nn.ReLU, **geometry):
    parts = [nn.Conv2d(cin, cout, kernel, bias=False, **geometry), nn.BatchNorm2d(cout)]
    return nn.Sequential(*parts, *([act(inplace=True)] if act else []))


class Network(nn.Module):
    """A stem, the part that a test gives, and a prediction layer."""

    def __init__(self, width=8):
        super().__init__()
        self.stem = block(3, 8, 3, stride=2, padding=1)
        self.build()
        self.last = nn.Conv2d(width, 4, 1)

    def forward(self, x):
        return self.last(self.run(self.stem(x)))


class Residual(Network):
    """An inverted residual block and a basic block."""

    def build(self):
        self.expand = block(8, 16, act=nn.ReLU6)
        self.depthwise = block(16, 16, 3, nn.ReLU6, padding=1, groups=16)
        self.project = block(16, 8, act=None)
        self.one = block(8, 8, 3, padding=1)
        self.two = block(8, 8, 3, None, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def run(self, x):
        x = x + self.project(self.depthwise(self.expand(x)))
        return self.relu(self.two(self.one(x)) + x)


class Gate(Network):
    """Squeeze and excitation, with the activations of MobileNetV3."""

    def build(self):
        self.expand = block(8, 16, act=nn.Hardswish)
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.project = block(16, 8, act=None)

    def run(self, x):
        x = self.expand(x)
        gate = F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))
        return self.project(x * F.hardsigmoid(self.excite(gate)))


class Pyramid(Network):
    """Branches of several dilations and of the whole image, concatenated and resized."""

    def build(self):
        self.small, self.wide = block(8, 8), block(8, 8, 3, padding=2, dilation=2, act=nn.SiLU)
        self.pooled = nn.Conv2d(8, 8, 1)
        self.mix = block(24, 8, act=nn.SiLU)
        self.down = block(8, 8, 3, stride=2, padding=1)

    def run(self, x):
        size = x.shape[2:]
        pooled = F.interpolate(self.pooled(F.adaptive_avg_pool2d(x, 1)), size, mode='bilinear')
        mixed = self.mix(torch.cat([self.small(x), self.wide(x), pooled], 1))
        low = self.down(F.max_pool2d(mixed, 3, 1, 1))
        return mixed + F.interpolate(low, size, mode='bilinear', align_corners=False)


class Levels(Network):
    """A head whose convolution all levels share, while each has its own BatchNorm, as in RTMDet."""

    def build(self):
        self.down = block(8, 8, 3, stride=2, padding=1)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        self.cls, self.reg = block(8, 8), block(8, 8)

    def run(self, x):
        levels = [
            F.silu(norm(self.shared(level)), inplace=True)
            for norm, level in zip(self.norms, [x, self.down(x)], strict=True)
        ]
        outputs = [self.cls(level) + self.reg(level) for level in levels]
        return outputs[0] + F.interpolate(outputs[1], x.shape[2:])


NETWORKS = [Residual, Gate, Pyramid, Levels]


def images(seed, size=(24, 20)):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


def scaled(kind, compression=INT8, learned=True):
    """Return a calibrated network with scales of maps."""
    torch.manual_seed(0)
    model = kind().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.weight, 0.8, 1.5)
    compress_model(model, compression, verbose=False)
    batches = [images(seed) for seed in range(3)]
    calibrate(model, batches)
    add_map_scales(model, (24, 20))
    if learned:
        calibrate(model, batches, again=False)
    return model


def integers(model):
    model = copy.deepcopy(model)
    return model, to_integer(model, verbose=False)


def skeleton(kind):
    """Return a network for an integer checkpoint, without any weights of its own."""
    model = kind().eval()
    compress_model(
        model, {**INT8, 'maps': dict(input_shape=(24, 20)), 'integer': True}, verbose=False
    )
    return model


@pytest.mark.parametrize('kind', NETWORKS)
@torch.no_grad()
def test_maps_equal_the_simulated_ones_up_to_a_level(kind):
    model = scaled(kind)
    seen: dict[str, dict] = {}
    other, _ = integers(model)
    readers = [name for name, layer in other.named_modules() if isinstance(layer, IntegerMapConv2d)]
    for network in (model, other):
        for name in readers:
            network.get_submodule(name).register_forward_pre_hook(
                lambda layer, args, name=name: seen.setdefault(name, {}).update(
                    {type(layer): args[0]}
                )
            )
    for size in ((24, 20), (33, 17)):
        seen.clear()
        x = images(7, size)
        y, expected = other(x), model(x)
        assert type(y) is torch.Tensor and y.shape == expected.shape
        for name, maps in seen.items():
            grid = other.get_submodule(name).reads
            values = maps[IntegerMapConv2d]
            got = values.on(grid) if hasattr(values, 'levels') else grid.bytes_of(values)
            difference = got.int() - grid.bytes_of(maps[QuantConv2d]).int()
            assert difference.abs().max() <= 1, name
            assert (difference != 0).float().mean() <= 0.005, name
        assert ((y - expected).abs() > 0.02 * expected.std()).float().mean() < 0.005


def test_the_report_names_every_convolution():
    model = scaled(Gate)
    _, report = integers(model)
    after = {layer.name: (layer.after, layer.reason) for layer in report}
    assert after == {
        'stem.0': ('Conv2d', 'not a quantized convolution'),
        'expand.0': ('IntegerMapConv2d', ''),
        'squeeze': ('IntegerMapConv2d', ''),
        'excite': ('IntegerMapConv2d', ''),
        'project.0': ('IntegerMapConv2d', ''),
        'last': ('Conv2d', 'not a quantized convolution'),
    }
    assert report.summary() == '6 convolutions: 2 Conv2d, 4 IntegerMapConv2d'


def test_one_batch_norm_for_each_level_is_not_folded():
    model, _ = integers(scaled(Levels))
    assert [type(norm) for norm in model.norms] == [nn.BatchNorm2d] * 2
    assert isinstance(model.shared, IntegerMapConv2d) and type(model.cls[1]) is nn.Identity


@torch.no_grad()
def test_batch_norm_is_folded_into_layers_that_stay_float_as_well():
    trained = scaled(Residual)
    model, _ = integers(trained)
    x = images(1)
    assert type(model.stem[0]) is nn.Conv2d and type(model.stem[1]) is nn.Identity
    assert torch.allclose(model.stem(x), trained.stem(x), rtol=1e-5, atol=1e-5)
    other = skeleton(Residual)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))


@torch.no_grad()
def test_maps_stay_in_bytes_between_layers():
    model, _ = integers(scaled(Residual))
    seen = {}
    for name in ('depthwise.0', 'project.0', 'one.0', 'two.0'):
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: seen.update({name: args[0]})
        )
    model(images(1))
    assert all(hasattr(x, 'levels') and x.grid is not None for x in seen.values())
    assert seen['depthwise.0'].grid == model.depthwise[0].reads
    assert type(model.expand[1]) is nn.Identity and not list(model.expand[0].parameters())


class Unused(Residual):
    """A network with layers that only training uses."""

    def build(self):
        super().build()
        self.extra = nn.ModuleList([nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1)])


def test_layers_that_never_ran_stay_and_the_skeleton_matches():
    model = scaled(Unused)
    with pytest.warns(UserWarning, match=r'extra\.1 stay as they are, because they never ran'):
        _, report = integers(model)
    reasons = {layer.name: layer.reason for layer in report if 'extra' in layer.name}
    assert reasons == {
        'extra.0': 'never ran when scales were added',
        'extra.1': 'never ran: its clips are not learned',
    }


def test_other_layers_keep_their_integer_forms():
    rules = [
        dict(pattern='project.0', type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5),
        dict(pattern='one.0', act_quant=dict(bits=16)),
    ]
    model = scaled(Residual, {**INT8, 'rules': rules})
    other, report = integers(model)
    assert type(other.project[0]) is IntegerWaveletCompressedConv2d
    assert type(other.project[1]) is nn.BatchNorm2d, 'transformed maps are not folded'
    reasons = {layer.name: layer.reason for layer in report}
    assert reasons['one.0'] == 'activations of 16 bits' and type(other.one[0]) is QuantConv2d
    with torch.no_grad():
        x = images(5)
        difference = (other(x) - model(x)).abs()
    assert (difference > 0.02 * model(x).std()).float().mean() < 0.02


@torch.no_grad()
def test_copies_and_checkpoints():
    model, x = integers(scaled(Pyramid))[0], images(4)
    y = model(x)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    empty = skeleton(Pyramid)
    with pytest.raises(RuntimeError, match='must have weights, got none so far'):
        empty(x)
    empty.load_state_dict(torch.load(buffer))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), empty):
        assert torch.equal(other(x), y)
    with torch.inference_mode():
        assert torch.equal(model(x), y)
    assert isinstance(model.map_scales, MapGrids) and not model._forward_pre_hooks
    assert not any(isinstance(key, str) and 'clip' in key for key in model.state_dict())


def test_float_weights_do_not_fit_an_integer_model_nor_the_reverse():
    model = scaled(Residual)
    other, _ = integers(model)
    with pytest.raises(RuntimeError, match='an integer model needs an integer checkpoint, got one'):
        other.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match='an integer checkpoint needs an integer model, got one'):
        model.load_state_dict(other.state_dict())


def test_costs_are_those_of_the_trained_network():
    model = scaled(Residual)
    trained = count_cost(model, (24, 20))
    other, _ = integers(model)
    report = count_cost(other, (24, 20))
    assert not trained.uncalled and not report.uncalled
    assert report.total.macs == trained.total.macs and report.total.bops == trained.total.bops
    layer = {layer.name: layer for layer in report.layers}['two.0']
    assert (layer.weight_bits, layer.act_bits) == (8, 8)
    assert layer.weight_bytes == 8 * 8 * 9 + 4 * (8 + 8)  # int8, a scale and a bias a channel


def test_costs_need_no_weights_and_leave_a_network_without():
    trained = count_cost(integers(scaled(Residual))[0], (24, 20))
    empty = skeleton(Residual)
    before = copy.deepcopy(empty.state_dict())
    assert count_cost(empty, (24, 20)).to_dict() == trained.to_dict()
    assert all(torch.equal(value, before[key]) for key, value in empty.state_dict().items())
    with pytest.raises(RuntimeError, match='must have weights, got none so far'):
        empty(images(4))


def test_layers_are_compressed_layers_with_bits():
    model, _ = integers(scaled(Residual))
    layers = compressed_layers(model)
    assert set(layers) == {'expand.0', 'depthwise.0', 'project.0', 'one.0', 'two.0'}
    state = LayerState.of(layers['depthwise.0'])
    assert (state.kind, state.weight_bits, state.act_bits) == ('IntegerMapConv2d', 8, 8)
    assert state.to_dict() == dict(type='IntegerMapConv2d')


def test_a_trace_computes_with_float_maps():
    model, x = integers(scaled(Residual))[0], images(1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        traced = torch.jit.trace(model, x, check_trace=False)
        assert (traced(x) - model(x)).abs().mean() < 0.05 * model(x).std()


@torch.no_grad()
def test_the_first_call_in_a_process_may_be_traced():
    model, x = integers(scaled(Residual))[0], images(4)
    y = model(x)
    for layer in compressed_layers(model).values():
        layer.forget()
    is_exact.cache_clear()
    traced = torch.jit.trace(model, x, check_trace=False)
    assert (traced(x) - y).abs().mean() < 0.02 * y.abs().mean()
    assert torch.equal(model(x), y)


def test_training_is_refused():
    model = integers(scaled(Residual))[0].train()
    with pytest.raises(RuntimeError, match='integers have no gradient, got a call in training'):
        model(images(1))


def test_nothing_is_converted_without_all_scales():
    model = scaled(Residual, learned=False)
    kinds = [type(module) for module in model.modules()]
    with pytest.raises(RuntimeError, match='every map must have learned its scale, got maps that'):
        to_integer(model, verbose=False)
    assert [type(module) for module in model.modules()] == kinds
    assert len(model._forward_pre_hooks) == 1, 'it still rounds its maps'


def test_nothing_is_converted_without_all_clips():
    model = Residual().eval()
    compress_model(model, INT8, verbose=False)
    add_map_scales(model, (24, 20))
    for name in model.map_scales.plan.own:
        model.map_scales.of(name).calibrate(torch.randn(5))
    with pytest.raises(RuntimeError, match='IntegerMapConv2d: weight_quant must have learned its'):
        to_integer(model, verbose=False)
    assert type(model.expand[0]) is QuantConv2d and hasattr(getattr(model, MAP_SCALES), 'join')


def test_nothing_is_converted_if_a_weight_is_nan():
    model = scaled(Residual)
    with torch.no_grad():
        model.two[0].weight[0, 0, 0, 0] = float('nan')
    with pytest.raises(ValueError, match='IntegerMapConv2d: the weights must be numbers, got'):
        to_integer(model, verbose=False)
    assert type(model.expand[0]) is QuantConv2d and len(model._forward_pre_hooks) == 1


def test_a_map_that_is_always_zero_needs_no_scale():
    model = scaled(Residual, learned=False)
    for name in model.map_scales.plan.own:
        model.map_scales.of(name).calibrate(torch.zeros(3))
    to_integer(model, verbose=False)
    assert torch.isfinite(model(images(1))).all()


@pytest.mark.parametrize('setting', ['MMWCC_KERNELS=reference', 'ONEDNN_MAX_CPU_ISA=AVX2'])
def test_other_paths_compute_the_same(setting, tmp_path):
    model, x = integers(scaled(Residual))[0], images(1)
    with torch.no_grad():
        y = model(x)
        torch.save((x, y), tmp_path / 'case.pt')
    torch.save(model, tmp_path / 'model.pt')
    script = (
        f'import sys, torch; sys.path.insert(0, {str(Path(__file__).parent)!r})\n'
        f'import test_integer_network, os; os.chdir({str(tmp_path)!r})\n'
        "model = torch.load('model.pt', weights_only=False)\n"
        "x, y = torch.load('case.pt')\n"
        'with torch.no_grad(): assert (model(x) - y).abs().mean() < 1e-3 * y.std()\n'
    )
    environment = os.environ | dict([setting.split('=')])
    subprocess.run([sys.executable, '-c', script], check=True, env=environment)


@torch.no_grad()
def test_a_float_map_has_its_activation_applied_with_the_convolution():
    class ReadInFloat(Network):
        def build(self):
            self.body = block(8, 8, 3, padding=1)

        def run(self, x):
            self.seen = self.body[0](x)  # hooks of modules see the convolution's own output
            return self.body[2](self.seen)

    trained = scaled(ReadInFloat)
    model, _ = integers(trained)
    x = images(3)
    y = model(x)
    assert model.seen.levels.dtype == torch.float32 and model.seen.levels.min() == 0
    assert type(y) is torch.Tensor
    assert torch.allclose(y, trained(x), atol=0.02 * float(trained(x).std()))


@torch.no_grad()
def test_a_sequential_is_a_network_too():
    trained = scaled(lambda: nn.Sequential(*block(3, 8, 3), *block(8, 8), nn.Conv2d(8, 4, 1)))
    model, _ = integers(trained)
    x = images(4)
    assert isinstance(model[3], IntegerMapConv2d)
    assert torch.allclose(model(x), trained(x), atol=0.02 * float(trained(x).std()))
