"""Functions of torch on 8-bit maps, against the same function on values and rounding after it."""

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmwcc.inference.map_functions import FUNCTIONS
from mmwcc.inference.quantized_map import Grid, QuantizedMap, Stored
from mmwcc.maps import KEEPING, NEW_GRID, canonical_name, combined

SIGNED, UNSIGNED, NIBBLE = Grid(0.03, -127, 127), Grid(0.02, 0, 255), Grid(0.5, -8, 7)
OUT = Grid(0.045, -128, 127)
SHAPES = [(2, 4, 7, 5), (4, 7, 5)]


def random_map(shape=(2, 4, 7, 5), grid=SIGNED, name='a', stored=None):
    levels = torch.randint(grid.low + grid.zero, grid.high + grid.zero + 1, shape)
    levels = levels.to(torch.uint8)
    if len(shape) == 4:
        levels = levels.contiguous(memory_format=torch.channels_last)
    return QuantizedMap(levels, grid, name, stored)


def assert_is(got, values, grid):
    """Check a map against values that are to be rounded to a grid."""
    assert isinstance(got, QuantizedMap) and got.grid == grid and not got.pending
    assert got.shape == values.shape == got.levels.shape
    exact = (values.double() / grid.step).clamp(grid.low, grid.high) + grid.zero
    assert (got.levels.double() - exact).abs().max() <= 0.5 + 1e-3


KEPT = {
    'avg_pool2d': [lambda x: F.avg_pool2d(x, 3, 2, 1), nn.AvgPool2d(2, ceil_mode=True)],
    'chunk': [lambda x: x.chunk(2, -3)[1], lambda x: torch.chunk(x, 3, dim=-1)[2]],
    'clone': [lambda x: x.clone()],
    'contiguous': [lambda x: x.contiguous()],
    'detach': [lambda x: x.detach()],
    'dropout': [lambda x: F.dropout(x, training=False), nn.Dropout().eval()],
    'dropout2d': [nn.Dropout2d(inplace=True).eval()],
    'flatten': [lambda x: x.flatten(-2), lambda x: torch.flatten(input=x, start_dim=1)],
    'getitem': [lambda x: x[..., ::2, 1:], lambda x: x[0], lambda x: x[..., torch.tensor([3, 1])]],
    'interpolate': [
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: F.interpolate(input=x, size=x.shape[2:][:1] * (x.dim() - 2), mode='nearest'),
    ],
    'max_pool2d': [lambda x: F.max_pool2d(x, 3, 2, 1), nn.MaxPool2d(2, ceil_mode=True)],
    'narrow': [lambda x: x.narrow(-1, 1, 2)],
    'pad': [
        lambda x: F.pad(x, (1, 0, 2, 1)),
        lambda x: F.pad(x, (1, 1), value=1.5),
        lambda x: F.pad(x, (1, 1, 1, 1), mode='reflect'),
        nn.ZeroPad2d(2),
    ],
    'permute': [lambda x: x.permute(*range(x.dim() - 1, -1, -1))],
    'pixel_shuffle': [lambda x: F.pixel_shuffle(x, 2)],
    'positive': [torch.positive, lambda x: 0 + x, lambda x: x * 1.0, lambda x: sum([x])],
    'reshape': [lambda x: x.reshape(-1, 5)],
    'split': [lambda x: x.split([1, 3], dim=-3)[1], lambda x: torch.split(x, 2, -2)[3]],
    'squeeze': [lambda x: x[:1].squeeze(0)],
    'transpose': [lambda x: x.transpose(-1, -2), lambda x: torch.transpose(x, 0, 1)],
    'unflatten': [lambda x: x.unflatten(-3, (2, 2))],
    'unsqueeze': [lambda x: x.unsqueeze(0)],
    'view': [lambda x: x.contiguous().flatten().view(-1, 7)],
}
FOUR_AXES = [
    lambda x: F.interpolate(x, (9, 4), mode='bilinear', align_corners=False),
    lambda x: F.interpolate(x, size=10, mode='bilinear', align_corners=True),
    lambda x: F.interpolate(x, scale_factor=1.7, mode='bilinear'),
    lambda x: F.interpolate(x, scale_factor=1.7, recompute_scale_factor=True),
    lambda x: F.interpolate(x, (3, 4), mode='bilinear', antialias=True),
    lambda x: F.interpolate(x, (9, 9), mode='bicubic'),
    lambda x: F.max_pool2d(F.interpolate(x, (40, 30)), 2),
    nn.Upsample((9, 9), mode='bilinear'),
]


def test_every_function_has_its_case():
    assert set(KEPT) == set(KEEPING)
    assert set(FUNCTIONS) <= KEEPING | {'adaptive_avg_pool2d', 'add', 'cat', 'setitem'}
    assert set(NEW) | {'add', 'cat', 'mul'} == set(NEW_GRID)


@pytest.mark.parametrize('grid', [SIGNED, UNSIGNED, NIBBLE], ids=['signed', 'unsigned', '4 bits'])
@pytest.mark.parametrize('shape', SHAPES, ids=len)
@pytest.mark.parametrize('name', KEPT)
def test_functions_that_keep_the_grid(name, shape, grid):
    for function in KEPT[name]:
        x = random_map(shape, grid)
        before = x.dequantize()
        got = function(x)
        assert_is(got, function(before.clone()), grid)
        assert got.map_name == 'a'
        assert torch.equal(x.dequantize(), before), 'the argument must stay'


@pytest.mark.parametrize('function', FOUR_AXES)
def test_resizing(function):
    x = random_map()
    assert_is(function(x), function(x.dequantize()), SIGNED)


@pytest.mark.parametrize('size', [1, (1, 1)])
def test_global_pooling_averages_bytes_exactly(size):
    x = random_map()
    got = F.adaptive_avg_pool2d(x, size)
    assert type(got) is Tensor
    torch.testing.assert_close(got, F.adaptive_avg_pool2d(x.dequantize().double(), 1).float())


NEW = {
    'gelu': [F.gelu, nn.GELU('tanh')],
    'hardsigmoid': [F.hardsigmoid, nn.Hardsigmoid(inplace=True)],
    'hardswish': [F.hardswish, nn.Hardswish(inplace=True)],
    'hardtanh': [F.hardtanh, nn.Hardtanh(-2, 1, inplace=True), F.hardtanh_],
    'leaky_relu': [F.leaky_relu, nn.LeakyReLU(0.2, inplace=True), F.leaky_relu_],
    'relu': [F.relu, torch.relu, Tensor.relu, Tensor.relu_, torch.relu_, nn.ReLU(inplace=True)],
    'relu6': [F.relu6, nn.ReLU6(), nn.ReLU6(inplace=True)],
    'sigmoid': [torch.sigmoid, Tensor.sigmoid, Tensor.sigmoid_, nn.Sigmoid()],
    'silu': [F.silu, nn.SiLU(inplace=True)],
}


def is_in_place(function):
    return getattr(function, 'inplace', False) or getattr(function, '__name__', '')[-1:] == '_'


@pytest.mark.parametrize('shape', SHAPES, ids=len)
@pytest.mark.parametrize('name', NEW)
def test_functions_with_a_grid_of_their_own(name, shape):
    for function in NEW[name]:
        stored = {f'{name}(a)': Stored(OUT, f'{name}(a)')}
        x = random_map(shape, stored=stored)
        before = x.dequantize()
        got = function(x)
        assert_is(got, function(before.clone()), OUT)
        assert got.map_name == f'{name}(a)' and got.stored is stored
        assert (got is x) == is_in_place(function)
        if got is not x:
            assert torch.equal(x.dequantize(), before)


@pytest.mark.parametrize('name', NEW)
def test_a_result_that_nothing_reads_in_integers_is_float(name):
    for function in NEW[name]:
        x = random_map()
        expected = function(x.dequantize())
        got = function(x)
        assert isinstance(got, QuantizedMap) == is_in_place(function)
        torch.testing.assert_close(got + 0, expected + 0)
        if is_in_place(function):  # the caller may go on with the argument
            assert got is x and x.grid is None
            torch.testing.assert_close(x * 2, expected * 2)


SUMS = [operator.add, torch.add, Tensor.add, operator.iadd, Tensor.add_]


@pytest.mark.parametrize('activation', ['', 'relu'])
@pytest.mark.parametrize('function', SUMS)
def test_sums(function, activation):
    name = 'relu(add(a,b))' if activation else 'add(a,b)'
    stored = {'add(a,b)': Stored(OUT, name, activation)}
    a, b = random_map(stored=stored), random_map(grid=UNSIGNED, name='b')
    expected = a.dequantize() + b.dequantize()
    y = function(a, b)
    assert (y is a) == (function in (operator.iadd, Tensor.add_))
    assert y.pending == activation
    if activation:
        y, expected = F.relu(y, inplace=True), expected.relu()
    assert_is(y, expected, OUT)
    assert y.map_name == name


@pytest.mark.parametrize(
    'function',
    [
        lambda a, b: a + b[..., :1],
        lambda a, b: torch.add(a, b, alpha=2),
        lambda a, b: torch.add(input=a, other=b),
        lambda a, b: a + b.dequantize(),
        lambda a, b: b.dequantize() + a,
        lambda a, b: a + 1,
        lambda a, b: 1 + a,
        lambda a, b: a * b,
        lambda a, b: a * b[:, :, :1, :1],
        lambda a, b: 0.5 * a,
        lambda a, b: torch.mul(a, b.dequantize()),
    ],
)
def test_sums_and_products_of_other_forms(function):
    names = [
        combined(operation, read)
        for operation in ('add', 'mul')
        for read in (['a', 'b'], ['a', ''], ['', 'a'], ['a'])
    ]
    stored = {name: Stored(OUT, name) for name in names}
    a, b = random_map(stored=stored), random_map(grid=UNSIGNED, name='b', stored=stored)

    x, y = a.dequantize(), b.dequantize()
    y.dequantize = lambda: y  # some cases add the values of b
    assert_is(function(a, b), function(x, y), OUT)


@pytest.mark.parametrize('function', [torch.cat, torch.concat])
def test_concatenation_rounds_each_map_to_one_grid(function):
    stored = {'cat(a,b,)': Stored(OUT, 'cat(a,b,)')}
    a, b = random_map(stored=stored), random_map((2, 3, 7, 5), OUT, 'b')
    third = torch.randn(2, 2, 7, 5)
    got = function([a, b, third], dim=1)
    assert_is(got, torch.cat([a.dequantize(), b.dequantize(), third], 1), OUT)
    assert torch.equal(got.levels[:, 4:7], b.levels), 'on this grid already'
    out = torch.empty(2, 9, 7, 5)
    assert torch.equal(torch.cat([a, b, third], 1, out=out), out)
    assert torch.equal(out, torch.cat([a.dequantize(), b.dequantize(), third], 1))


def test_readers_of_one_grid_share_the_rounded_bytes():
    x = random_map()
    assert x.on(UNSIGNED) is x.on(UNSIGNED)
    before = x.on(UNSIGNED)
    x.become(random_map())
    assert not torch.equal(x.on(UNSIGNED), before)


def test_a_pending_activation_must_come_next():
    fused = QuantizedMap(random_map().levels, UNSIGNED, 'relu(a)', {}, 'relu')
    for reader in (lambda x: x + 1, F.silu, lambda x: x[0], torch.linalg.norm, F.max_pool2d):
        with pytest.raises(RuntimeError, match=r"'relu\(a\)' must be read by relu first"):
            reader(fused, 2) if reader is F.max_pool2d else reader(fused)
    with pytest.raises(RuntimeError, match='must be read by relu first.*got a layer'):
        fused.on(OUT)
    assert fused.shape == (2, 4, 7, 5) and fused.size(1) == 4, 'asking for its shape is no reading'
    done = F.relu(fused)
    assert torch.equal(done.levels, fused.levels) and not done.pending
    assert done.on(UNSIGNED) is done.levels


def test_other_functions_get_values():
    x = random_map()
    values = x.dequantize()
    for function in (
        lambda x: x.mean((2, 3)),
        lambda x: F.adaptive_avg_pool2d(x, 2),
        lambda x: F.conv2d(x, torch.ones(3, 4, 3, 3)),
        lambda x: x.softmax(1),
        lambda x: torch.linalg.norm(x),
        lambda x: x - 1,
        lambda x: x.mT,
        lambda x: x.data,
        lambda x: x.to(torch.float64),
        lambda x: torch.stack([x, x]),
        lambda x: F.max_pool2d(x, 2, return_indices=True)[1],
        lambda x: torch.stack(list(x)),
    ):
        got = function(x)
        assert type(got) is Tensor and torch.equal(got, function(values))
    assert x.shape == values.shape and x.dtype == torch.float32 and x.dim() == 4
    assert len(x) == 2 and x.numel() == values.numel() and x.device == values.device
    assert 'QuantizedMap' in repr(x)


@pytest.mark.parametrize(
    'change',
    [
        lambda x: x.clamp_(-1, 1),
        lambda x: x.sub_(1),
        lambda x: x.copy_(torch.ones(5)),
        lambda x: operator.isub(x, 1),
        lambda x: operator.itruediv(x, 3),
        lambda x: x.__setitem__((slice(None), 1), 5.0),
        lambda x: operator.setitem(x, (0, slice(1, 3)), x[1, 1:3]),
        lambda x: x.__setitem__(0, x[1] * 2),
        lambda x: F.elu(x, inplace=True),
        lambda x: torch.exp(x, out=x),
    ],
)
def test_functions_in_place_change_the_map_even_if_they_leave_integers(change):
    x = random_map()
    values = x.dequantize().clone()
    change(x)
    change(values)
    assert x.grid is None
    torch.testing.assert_close(x.dequantize(), values)
    torch.testing.assert_close(x + 0, values)
    assert torch.equal(x.on(OUT), OUT.bytes_of(values))
    change(x)
    change(values)
    torch.testing.assert_close(x[0], values[0])


def test_a_function_in_place_must_keep_the_shape():
    with pytest.raises(RuntimeError, match=r'must keep the shape, got \(2, 4, 7, 5\) before and'):
        random_map().unsqueeze_(0)


def test_code_in_cpp_gets_values():
    x = random_map()
    with torch._C.DisableTorchFunctionSubclass():
        assert torch.equal(torch.ops.aten.mul.Tensor(x, x), x.dequantize() ** 2)


def test_a_map_is_named_as_its_functions_are():
    assert canonical_name(Tensor.__iadd__) == 'add' and canonical_name(F.relu_) == 'relu'
    assert canonical_name(F.hardtanh, (0, 0, 6)) == 'relu6'
    assert canonical_name(F.hardtanh, (0,), dict(min_val=0.0, max_val=6.0)) == 'relu6'
    assert canonical_name(F.hardtanh, (0, -1, 6)) == 'hardtanh'
    assert canonical_name(torch.add, (1,), dict(other=0)) == 'positive'
    assert (
        canonical_name(torch.mul, (2, 0)) == 'mul' and canonical_name(torch.add, (0.5, 1)) == 'add'
    )
    assert canonical_name(torch.concatenate) == canonical_name(torch.concat) == 'cat'
