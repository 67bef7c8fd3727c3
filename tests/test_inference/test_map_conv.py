"""One integer convolution between maps: against float64, and through copies and checkpoints."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmwcc.inference.integer_levels import integer_weight
from mmwcc.inference.map_conv import IntegerMapConv2d
from mmwcc.inference.map_grids import MapGrids
from mmwcc.inference.quantized_map import Grid, QuantizedMap
from mmwcc.layers import QuantConv2d
from mmwcc.maps import MapPlan

GEOMETRIES = {
    '1x1': dict(kernel_size=1),
    '1x1 strided': dict(kernel_size=1, stride=2, bias=False),
    '3x3': dict(kernel_size=3, padding=1),
    'strided': dict(kernel_size=3, stride=(2, 1), padding=(1, 0), bias=False),
    'dilated': dict(kernel_size=3, padding=2, dilation=2),
    'depthwise': dict(kernel_size=5, padding=2, groups=8),
    'grouped': dict(kernel_size=(1, 3), groups=4),
}
ACTIVATIONS = dict(relu=F.relu, relu6=F.relu6, hardswish=F.hardswish, silu=F.silu)
PLAN = MapPlan(['conv'], {'conv': ['conv']}, {}, {'conv': 'conv'})
GRID = Grid(1 / 16, -127, 127)


def trained(geometry, bits=8, signed=True):
    quantizers = dict(
        weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=bits, per_channel=True),
        act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=bits),
    )
    layer = QuantConv2d(8, 8, **geometry, **quantizers)
    layer(images(signed))  # the first batch calibrates
    return layer.eval()


def images(signed=True, size=(11, 9)):
    x = torch.randn(2, 8, *size)
    return x if signed else x.abs()


def norm():
    norm = nn.BatchNorm2d(8).eval()
    norm.running_var.uniform_(0.5, 2)
    norm.running_mean.normal_()
    nn.init.uniform_(norm.weight, -1, 1)
    return norm


def converted(layer, plan=None, behind=None):
    """Return the integer layer with the grids of the maps around it."""
    grids = MapGrids(plan or MapPlan(['conv']))
    for name in grids.plan.own:
        grids.of(name).take(torch.tensor(GRID.step), GRID.low, GRID.high)
    made = IntegerMapConv2d(layer, 'conv', grids).eval()
    made.take(layer, behind)
    return made, grids


def exact(layer, made, x, behind=None):
    """Compute what the integer layer must, in float64, from the integers of the trained layer."""
    levels, step = integer_weight('test', layer)
    weight = levels.view_as(layer.weight).double() * step.view(-1, 1, 1, 1)
    x = made.reads.values_of(made.reads.bytes_of(x)).double()
    bias = None if layer.bias is None else layer.bias.double()
    y = F.conv2d(
        x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups
    )  # fmt: skip
    return y if behind is None else copy.deepcopy(behind).double()(y)


@pytest.mark.parametrize('behind', [None, norm()], ids=['alone', 'BatchNorm'])
@pytest.mark.parametrize('bits', [8, 4])
@pytest.mark.parametrize('signed', [True, False])
@pytest.mark.parametrize('name', GEOMETRIES)
@torch.no_grad()
def test_values_equal_float64(name, signed, bits, behind):
    layer = trained(GEOMETRIES[name], bits, signed)
    made, _ = converted(layer, behind=behind)
    assert (made.reads.low < 0) == signed and made.reads.high < 2**bits
    x = images(signed, (13, 6))
    expected = exact(layer, made, x, behind)
    got = made(x)
    assert type(got) is torch.Tensor and got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)
    if behind is None:
        torch.testing.assert_close(got, layer(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made(x[0]), got[:1].squeeze(0))


@pytest.mark.parametrize('activation', ['', *ACTIVATIONS])
@torch.no_grad()
def test_maps_are_the_rounded_values(activation):
    last = f'{activation}(conv)' if activation else 'conv'
    chain = ['conv', last] if activation else ['conv']
    plan = MapPlan(['conv'], {'conv': chain}, {}, {last: last})
    layer = trained(GEOMETRIES['3x3'])
    made, _ = converted(layer, plan)
    x = images()
    y = made(x)
    assert isinstance(y, QuantizedMap) and (y.grid, y.map_name) == (GRID, last)
    assert y.pending == activation and y.shape == (2, 8, 11, 9)
    expected = ACTIVATIONS.get(activation, lambda y: y)(exact(layer, made, x))
    expected = (expected / y.grid.step).clamp(y.grid.low, y.grid.high) + y.grid.zero
    assert (y.levels.double() - expected).abs().max() <= 0.5 + 1e-3


@torch.no_grad()
def test_a_map_on_another_grid_is_rounded_again():
    made, _ = converted(trained(GEOMETRIES['3x3']))
    other = QuantizedMap(GRID.bytes_of(images()), GRID, 'x')
    assert torch.equal(made(other), made(other.dequantize()))
    same = QuantizedMap(made.reads.bytes_of(images()), made.reads, 'x')
    assert torch.equal(made(same), made(same.dequantize()))


@torch.no_grad()
def test_copies_compute_the_same():
    layer, x = trained(GEOMETRIES['grouped']), images()
    made, grids = converted(layer, PLAN)
    y = made(x)
    buffer = io.BytesIO()
    torch.save(nn.ModuleList([made, grids]).state_dict(), buffer)
    fresh = MapGrids(PLAN)
    empty = IntegerMapConv2d(layer, 'conv', fresh).eval()
    with pytest.raises(RuntimeError, match='must have weights, got none so far'):
        empty(x)
    buffer.seek(0)
    nn.ModuleList([empty, fresh]).load_state_dict(torch.load(buffer))
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), empty):
        assert torch.equal(other(x).levels, y.levels) and other(x).grid == y.grid


@torch.no_grad()
def test_grids_are_read_again_after_loading():
    made, grids = converted(trained(GEOMETRIES['1x1']), PLAN)
    x = images()
    assert made(x).grid == GRID
    state = grids.state_dict() | {'conv.step': torch.tensor(0.5)}
    grids.load_state_dict(state)
    assert made(x).grid == Grid(0.5, -127, 127)
    grids.load_state_dict({**state, 'conv.grid': torch.zeros(2, dtype=torch.int16)})
    with pytest.raises(RuntimeError, match='every map must have a grid, got none so far'):
        made(x)


@torch.no_grad()
def test_half_precision_leaves_the_buffers():
    made, grids = converted(trained(GEOMETRIES['1x1']), PLAN)
    x = images()
    y = made(x)
    network = nn.ModuleList([made, grids]).half()
    assert {buffer.dtype for buffer in network.buffers()} == {
        torch.int8,
        torch.int16,
        torch.float32,
    }
    assert torch.equal(made(x).levels, y.levels)
    assert made(x.half()).dtype == torch.float32


def test_on_the_meta_device():
    layer = trained(GEOMETRIES['3x3'])
    made, grids = converted(layer, PLAN)
    x = images()
    y = made(x)
    state = copy.deepcopy(nn.ModuleList([made, grids]).state_dict())
    network = nn.ModuleList([made, grids]).to('meta')
    assert all(buffer.is_meta for buffer in network.buffers())
    network.load_state_dict(state, assign=True)
    assert torch.equal(made(x).levels, y.levels)


def test_bad_calls():
    made, _ = converted(trained(GEOMETRIES['3x3']))
    with pytest.raises(RuntimeError, match='integers have no gradient, got a call in training'):
        made.train()(images())
    with pytest.raises(ValueError, match='x must have in_channels=8 channels'):
        made.eval()(torch.randn(1, 3, 4, 4))
    fresh = QuantConv2d(8, 8, 3, act_quant=dict(type='mmwcc.LearnedClipActQuantizer'))
    with pytest.raises(RuntimeError, match='act_quant must have learned its clip'):
        IntegerMapConv2d(fresh, 'conv', MapGrids(MapPlan())).take(fresh, None)
