"""What holds for all numba kernels: threads, and the storage of their arguments."""

import importlib

import pytest
import torch

from mmwcc import kernels

pytest.importorskip(
    'numba', reason='the kernels are numba; without it the references run, which other tests cover'
)

haar = importlib.import_module('mmwcc.kernels.haar')
cpu = importlib.import_module('mmwcc.kernels.cpu.haar')
cpu_fake_quant = importlib.import_module('mmwcc.kernels.cpu.fake_quant')
threads = importlib.import_module('mmwcc.kernels.cpu.threads')

LAYOUTS = [torch.contiguous_format, torch.channels_last]


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
    one, *others = (_results(count, x, slot) for count in (1, 2, 3))
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


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


@pytest.mark.parametrize('name', ['fork', '_run_alone'])
def test_loops_take_arrays_in_tuples(name):
    numba = importlib.import_module('numba')
    fork = getattr(threads, name)

    @numba.njit
    def add(begin, end, results, values):
        (total,), (x, (y, factor)) = results, values
        for n in range(begin, end):
            total[n] = x[n] + y[n] * factor

    @numba.njit
    def kernel(count, team, *arguments):
        fork(add, count, team, arguments)

    x, y, total = (torch.full((9,), value).numpy() for value in (1.0, 2.0, 0.0))
    kernel(9, 2, (total,), (x, (y, 3)))
    assert total.tolist() == [7.0] * 9


def _every_operator():
    """Yield the name of each operator and parameters and buffers for it, in both memory formats."""
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
    """FSDP frees and reallocates the memory of parameters, which ``Tensor.numpy`` would forbid."""
    called = set()
    for name, arguments in _every_operator():
        called.add(name)
        result = getattr(torch.ops.mmwcc, name)(*arguments)
        results = result if isinstance(result, tuple) else (result,)
        tensors = [x for x in (*arguments, *results) if isinstance(x, torch.Tensor)]
        assert all(x.untyped_storage().resizable() for x in tensors), name
    modules = [
        importlib.import_module(f'mmwcc.kernels.cpu.{name}')
        for name in ('depthwise', 'fake_quant', 'gather', 'haar', 'int8', 'product', 'select')
    ]
    assert called == {name for module in modules for name in module.__all__} - {'select_kernel'}
