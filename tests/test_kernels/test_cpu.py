"""The numba kernels against the torch references."""

import importlib
import math

import pytest
import torch

from mmwcc import kernels

pytest.importorskip(
    'numba', reason='the kernels are numba; without it the references run, which other tests cover'
)

haar = importlib.import_module('mmwcc.kernels.haar')
fake_quant = importlib.import_module('mmwcc.kernels.fake_quant')
cpu = importlib.import_module('mmwcc.kernels.cpu.haar')
bands = importlib.import_module('mmwcc.kernels.cpu.bands')
cpu_fake_quant = importlib.import_module('mmwcc.kernels.cpu.fake_quant')

select = importlib.import_module('mmwcc.kernels.select')
cpu_select = importlib.import_module('mmwcc.kernels.cpu.select')
threads = importlib.import_module('mmwcc.kernels.cpu.threads')

SHAPES = [
    (1, 3, 1, 1),
    (2, 144, 17, 9),
    (1, 65, 16, 24),
    (2, 1, 5, 40),
    (1, 1040, 33, 8),
    (1, 64, 8, 64),
    (2, 17, 12, 48),
    (1, 80, 9, 300),
]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch):
    """Fill what kernels allocate with NaN, so that a value they forget to write cannot pass."""
    for module in (cpu, cpu_fake_quant, cpu_select):
        for name in {'empty', 'empty_like'} & set(vars(module)):
            monkeypatch.setattr(module, name, _poisoned(getattr(module, name)))


def _poisoned(allocate):

    def run(*args, **kwargs):
        x = allocate(*args, **kwargs)
        return x.fill_(float('nan') if x.is_floating_point() else 77)

    return run


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('levels', [1, 2, 3, 4])
@pytest.mark.parametrize('shape', SHAPES)
def test_haar_kernels_equal_the_references(shape, levels, layout):
    x = torch.randn(shape).to(memory_format=layout)
    norms = haar._norms(x, levels)
    torch.testing.assert_close(
        cpu.haar_norms(x, levels), norms, rtol=1e-6, atol=1e-6 * norms.max().item()
    )
    k = max(1, norms.shape[1] // 3)
    slot = kernels.select(norms, k)
    rows = haar._pack(x, slot, k, levels)
    assert torch.equal(cpu.haar_pack(x, slot, k, levels), rows)
    step = torch.tensor(0.03)
    assert torch.equal(
        cpu.haar_pack_int8(x, slot, k, levels, step, -128, 127),
        haar._pack_int8(x, slot, k, levels, step, -128, 127),
    )
    for bias, residual, low, high in (
        (None, None, None, None),
        (torch.randn(shape[1]), None, 0.0, 6.0),
        (torch.randn(shape[1]), x, None, None),
        (None, x, None, 1.0),
    ):
        for channels_last in (False, True):
            arguments = (rows, slot, bias, *shape[2:], levels, channels_last, residual, low, high)
            expected, got = haar._unpack(*arguments), cpu.haar_unpack(*arguments)
            assert torch.equal(got, expected)
            assert got.stride() == expected.stride()


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('levels', [1, 3, 4])
@pytest.mark.parametrize('shape', SHAPES)
def test_shrink_is_norms_selection_and_pack(shape, levels, layout):
    x, step = torch.randn(shape).to(memory_format=layout), torch.tensor(0.03)
    norms = cpu.haar_norms(x, levels)
    for k in {1, max(1, norms.shape[1] // 3), norms.shape[1]}:
        slot = select._select(norms, k)
        rows = haar._pack(x, slot, k, levels), haar._pack_int8(x, slot, k, levels, step, -128, 127)
        got = cpu.haar_shrink(x, k, levels), cpu.haar_shrink_int8(x, k, levels, step, -128, 127)
        for expected, (packed, positions) in zip(rows, got, strict=True):
            assert torch.equal(packed, expected)
            assert torch.equal(positions, slot)


@pytest.mark.parametrize('channels_last, width', [(True, 35), (False, 48), (False, 144)])
def test_large_maps_are_written_past_the_cache_with_the_same_values(
    channels_last, width, monkeypatch
):
    slot = kernels.select(torch.rand(2, 24 * -(-width // 8) * 8), 300)
    ends = (None, None, None) if channels_last else (torch.randn(2, 48, 21, width), 0.0, 6.0)
    arguments = (torch.randn(2, 300, 48), slot, torch.randn(48), 21, width, 3, channels_last, *ends)
    plain = cpu.haar_unpack(*arguments)
    monkeypatch.setattr(cpu, '_STREAMED', 0)
    monkeypatch.setattr(importlib.import_module('mmwcc.kernels.cpu.memory'), '_LARGE', 0)
    streamed = cpu.haar_unpack(*arguments)
    assert streamed.data_ptr() % 64 == 0
    assert torch.equal(streamed, plain)


@pytest.mark.parametrize('size', [(3, 5), (8, 32), (9, 70)])
@pytest.mark.parametrize('channels_last', [False, True])
def test_unpack_writes_nothing_outside_the_map(channels_last, size, monkeypatch):
    memory = torch.full((1 << 16,), 7.0)
    monkeypatch.setattr(
        cpu, 'empty', lambda shape: memory[1024 : 1024 + math.prod(shape)].view(shape)
    )
    slot = kernels.select(torch.rand(1, -(-size[0] // 16) * -(-size[1] // 16) * 256), 40)
    y = cpu.haar_unpack(
        torch.randn(1, 40, 18), slot, None, *size, 4, channels_last, None, None, None
    )
    assert (memory[:1024] == 7).all()
    assert (memory[1024 + y.numel() :] == 7).all()


@pytest.mark.parametrize(
    'view',
    [
        lambda x: x[:, :, ::2, ::2],
        lambda x: x.transpose(2, 3),
        lambda x: x[:, 1:6],
        lambda x: x[:1].expand(3, -1, -1, -1),
    ],
)
def test_haar_kernels_take_maps_in_neither_layout(view):
    x = view(torch.randn(2, 8, 20, 22))
    norms = haar._norms(x, 2)
    torch.testing.assert_close(cpu.haar_norms(x, 2), norms)
    slot = kernels.select(norms, 30)
    assert torch.equal(cpu.haar_pack(x, slot, 30, 2), haar._pack(x, slot, 30, 2))


@pytest.mark.parametrize(
    'norms',
    [
        torch.rand(3, 1000),
        torch.zeros(2, 64),
        torch.randint(0, 3, (4, 777)).float(),
        torch.rand(2, 500) * 1e-40,
        torch.tensor([[float('nan'), 1, float('inf'), 2, -float('nan'), 0.0, -0.0]]),
        torch.rand(2, 13001),
        torch.randint(0, 3, (2, 13001)).float(),
        torch.zeros(1, 8193),
    ],
    ids=[
        'random',
        'zeros',
        'many ties',
        'subnormal',
        'not finite',
        'pieces',
        'ties in all pieces',
        'zeros in pieces',
    ],
)
def test_selection_equals_the_reference(norms):
    positions = norms.shape[1]
    for k in {1, 2, positions // 2, positions - 1, positions}:
        assert torch.equal(cpu_select.select(norms, k), select._select(norms, k))


def _results(count, x, slot):
    torch.set_num_threads(count)
    rows = cpu.haar_pack(x, slot, 500, 3)
    grad_alpha = cpu_fake_quant.fake_quant_backward(
        x, x, torch.tensor(1.5), torch.tensor(1), 8, True, True, 1.0
    )[1]
    return (
        cpu.haar_norms(x, 3),
        rows,
        cpu.haar_unpack(rows, slot, None, 40, 24, 3, True, x, None, None),
        grad_alpha,
    )


@pytest.mark.parametrize('layout', LAYOUTS)
def test_kernels_do_not_depend_on_the_number_of_threads(layout):
    x = torch.randn(2, 70, 40, 24).to(memory_format=layout)
    slot = kernels.select(haar._norms(x, 3), 500)
    one, two, three = (_results(count, x, slot) for count in (1, 2, 3))
    assert all(
        torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(one, two, three, strict=True)
    )


def test_kernels_do_not_depend_on_the_width_of_their_bands():
    """Maps of few lines are cut into narrower bands for more threads."""
    x = torch.randn(1, 20, 7, 300)
    slot = kernels.select(haar._norms(x, 3), 500)

    def results(count):
        torch.set_num_threads(count)
        rows = cpu.haar_pack(x, slot, 500, 3)
        return (
            cpu.haar_norms(x, 3),
            rows,
            cpu.haar_unpack(rows, slot, None, 7, 300, 3, False, None, None, None),
        )

    assert bands._bands(tuple(x.shape), 3, 1)[1][2][0] == 128
    assert all(torch.equal(a, b) for a, b in zip(results(1), results(8), strict=True))
    assert bands._bands(tuple(x.shape), 3, 8)[1][2][0] == 32


@pytest.mark.parametrize('name', ['fork', '_run_alone'])
@pytest.mark.parametrize('count', [1, 2, 7, 1000])
def test_loops_cover_their_range_once_on_many_threads_and_on_one(count, name):
    numba = importlib.import_module('numba')
    fork = getattr(threads, name)

    @numba.njit
    def mark(begin, end, seen, amounts):
        for n in range(begin, end):
            seen[n] += amounts[0]

    @numba.njit
    def kernel(count, team, *arguments):
        fork(mark, count, team, arguments)

    seen = torch.zeros(count, dtype=torch.int64).numpy()
    kernel(count, min(2, count), seen, (3, 4.0))
    assert (seen == 3).all()


def test_haar_kernels_keep_nan_and_infinity_visible():
    x = torch.zeros(1, 2, 8, 16)
    x[0, 0, 0, 0], x[0, 1, 0, 8] = float('nan'), float('inf')
    norms = cpu.haar_norms(x, 3)[0]
    assert norms[:64].isnan().any()
    assert not norms[64:].isfinite().all()


@pytest.mark.parametrize('clip_gradient', [False, True])
@pytest.mark.parametrize('symmetric', [False, True])
@pytest.mark.parametrize('signed', [0, 1])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_fake_quant_kernels_equal_the_references(layout, signed, symmetric, clip_gradient):
    x = torch.randn(2, 8, 57, 61).to(memory_format=layout)
    grad = torch.randn(2, 8, 57, 61)
    arguments = (
        x,
        torch.tensor(1.1),
        torch.tensor(signed, dtype=torch.uint8),
        4,
        symmetric,
        clip_gradient,
        0.5,
    )
    assert torch.equal(cpu_fake_quant.fake_quant(*arguments), fake_quant._fake_quant(*arguments))
    grad_x, grad_alpha = cpu_fake_quant.fake_quant_backward(grad, *arguments)
    expected_x, expected_alpha = fake_quant._fake_quant_backward(grad, *arguments)
    assert torch.equal(grad_x, expected_x)
    assert grad_x.stride() == expected_x.stride()
    torch.testing.assert_close(grad_alpha, expected_alpha, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize('rounding', [False, True])
@pytest.mark.parametrize('clips', [1, 24])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_fake_quant_kernels_of_weights_equal_the_references(layout, clips, rounding):
    x, grad = torch.randn(24, 60, 9, 9).to(memory_format=layout), torch.randn(24, 60, 9, 9)
    clip = 0.5 + torch.rand(clips, 1, 1, 1)
    arguments = (x, clip, torch.tensor(1), 4, True, True, 0.5, rounding)
    assert torch.equal(cpu_fake_quant.fake_quant(*arguments), fake_quant._fake_quant(*arguments))
    grad_x, grad_clip = cpu_fake_quant.fake_quant_backward(grad, *arguments)
    expected_x, expected_clip = fake_quant._fake_quant_backward(grad, *arguments)
    assert torch.equal(grad_x, expected_x)
    torch.testing.assert_close(grad_clip, expected_clip, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('shape', [(1, 6, 1, 1), (2, 1, 5, 1)])
def test_the_reference_serves_clips_that_do_not_follow_the_memory(shape):
    x, clip = torch.randn(2, 6, 5, 7), 0.5 + torch.rand(shape)
    arguments = (x, clip, torch.tensor(1), 4, True, True, 0.5)
    assert cpu_fake_quant.fake_quant(*arguments) is NotImplemented
    assert torch.equal(kernels.fake_quant(*arguments), fake_quant._fake_quant(*arguments))
    for got, expected in zip(
        kernels.fake_quant_backward(x, *arguments),
        fake_quant._fake_quant_backward(x, *arguments),
        strict=True,
    ):
        assert torch.equal(got, expected)


def test_fake_quant_keeps_nan_and_clips_infinity():
    x = torch.tensor([float('nan'), float('inf'), -float('inf')])
    y = cpu_fake_quant.fake_quant(x, torch.tensor(1.5), torch.tensor(1), 8, True, True, 1.0)
    assert y[0].isnan() and y[1:].tolist() == [1.5, -1.5]


def _every_operator():
    """Yield the name of each operator and arguments for it, in both memory formats: parameters and buffers."""
    half, weight = torch.tensor([0.5]), torch.nn.Parameter(torch.randn(24, 1, 3, 3))
    bias, kernel = (
        torch.nn.Parameter(torch.randn(24)),
        torch.nn.Parameter(torch.randn(40, 24, 1, 1)),
    )
    clip, signed = torch.nn.Parameter(torch.tensor([1.5])), torch.tensor(1, dtype=torch.uint8)
    integers = torch.randint(-9, 9, (40, 24), dtype=torch.int8)
    for layout in LAYOUTS:
        x = torch.nn.Parameter(torch.randn(2, 24, 16, 40).to(memory_format=layout))
        norms = kernels.haar_norms(x, 3)
        slot = kernels.select(norms, 100)
        rows, coefficients = kernels.haar_pack(x, slot, 100, 3), torch.randn(2, 640, 24)
        yield 'haar_norms', (x, 3)
        yield 'select', (norms, 100)
        yield 'haar_pack', (x, slot, 100, 3)
        yield 'haar_pack_int8', (x, slot, 100, 3, half, -128, 127)
        yield 'haar_shrink', (x, 100, 3)
        yield 'haar_shrink_int8', (x, 100, 3, half, -128, 127)
        yield (
            'haar_unpack',
            (rows, slot, bias, 16, 40, 3, layout == torch.channels_last, x, 0.0, 6.0),
        )
        yield 'multiply_rows', (rows, kernel)
        yield 'depthwise_haar', (x, weight, bias, 1, 3, 0.0, 6.0)
        yield 'gather_rows', (coefficients, slot, 100)
        yield 'gather_rows_int8', (coefficients, slot, 100, half, -128, 127)
        yield 'quantize_int8', (x, half, -128, 127)
        yield 'int8_linear', (integers[None], integers, bias[:1].repeat(40), kernel.flatten()[:40])
        yield 'fake_quant', (x, clip, signed, 8, True, True, 1.0)
        yield 'fake_quant_backward', (torch.ones_like(x), x, clip, signed, 8, True, True, 1.0)


def test_operators_leave_the_storage_of_their_arguments_resizable():
    """FSDP frees and reallocates the memory of parameters, which ``Tensor.numpy`` would forbid for good."""
    called = set()
    for name, arguments in _every_operator():
        called.add(name)
        result = getattr(torch.ops.mmwcc, name)(*arguments)
        results = result if isinstance(result, tuple) else (result,)
        tensors = [x for x in (*arguments, *results) if isinstance(x, torch.Tensor)]
        assert all(x.untyped_storage().resizable() for x in tensors), name
    modules = [
        importlib.import_module(f'mmwcc.kernels.cpu.{name}')
        for name in ('depthwise', 'fake_quant', 'haar', 'int8', 'product', 'select')
    ]
    assert called == {name for module in modules for name in module.__all__} - {'select_kernel'}
