"""Integer operators: the contract, and CPU kernels bit for bit against references and int64."""

import importlib
import os
import platform
import subprocess
import sys
import textwrap

import pytest
import torch
from torch.library import opcheck

from mmwcc import kernels

reference = importlib.import_module('mmwcc.kernels.int8')
GRIDS = [(-127, 127), (-128, 127), (-7, 7), (0, 255), (0, 15)]
VIEWS = {
    'contiguous': lambda x: x,
    'channels_last': lambda x: x.contiguous(memory_format=torch.channels_last),
    'strided': lambda x: x[:, :, ::2, 1::2],
    'strided channels_last': lambda x: x.contiguous(memory_format=torch.channels_last)[
        :, :, ::2, 1::2
    ],
    'some channels': lambda x: x[:, 1:],
    'some channels_last': lambda x: x.contiguous(memory_format=torch.channels_last)[:, 1:],
    'transposed': lambda x: x.transpose(2, 3),
    'expanded': lambda x: x[:1].expand(3, -1, -1, -1),
}


@pytest.fixture
def cpu():
    pytest.importorskip('numba', reason='the kernels are numba; without it the references run')
    return importlib.import_module('mmwcc.kernels.cpu.int8')


def integers(*shape, low=-128, high=127):
    return torch.randint(low, high + 1, shape).to(torch.int8)


def exact_linear(rows, weight, scale, bias):
    y = (rows.long() @ weight.long().t()).to(scale.dtype) * scale
    return y if bias is None else y + bias


def test_levels_round_half_to_even_and_clamp():
    x = torch.tensor(
        [
            -9.0,
            -2.5,
            -1.5,
            -0.5,
            0.5,
            1.5,
            2.5,
            9.0,
            float('inf'),
            -float('inf'),
            float('nan'),
            0.26,
        ]
    )
    x = x.reshape(1, 2, 2, 3)
    got = kernels.quantize_int8(x, torch.tensor(0.5), -4, 3)
    assert got.shape == (1, 6, 2) and got.dtype == torch.int8
    # x / step: -18 -5 -3 -1 1 3 | 5 18 inf -inf nan 0.52
    assert got[0].t().tolist() == [[-4, -4, -3, -1, 1, 3], [3, 3, 3, -4, 0, 1]]
    got = kernels.quantize_int8(x, torch.tensor(1.0), -128, 127)
    assert got[0].t().tolist() == [[-9, -2, -2, 0, 0, 2], [2, 9, 127, -128, 0, 0]]


def test_unsigned_levels_are_stored_128_lower_if_they_need_eight_bits():
    x = torch.tensor([-1.0, 0.0, 100.0, 300.0, float('nan')]).reshape(1, 1, 1, 5)
    assert kernels.quantize_int8(x, torch.tensor(1.0), 0, 255).flatten().tolist() == [
        -128,
        -128,
        -28,
        127,
        -128,
    ]
    assert kernels.quantize_int8(x, torch.tensor(1.0), 0, 127).flatten().tolist() == [
        0,
        0,
        100,
        127,
        0,
    ]


@pytest.mark.parametrize('view', VIEWS)
@pytest.mark.parametrize('shape', [(2, 70, 17, 12), (1, 3, 2, 2), (2, 24, 9, 64), (1, 17, 1, 130)])
def test_quantize_kernel_equals_the_reference(cpu, shape, view):
    x = torch.randn(shape) * 5
    x[0, 0, 0, 0], x[-1, -1, -1, -1], x[0, -1, -1, 0] = float('nan'), float('inf'), -float('inf')
    x = VIEWS[view](x)
    for low, high in GRIDS:
        arguments = x, torch.tensor(0.0371), low, high
        expected, got = reference._quantize(*arguments), cpu.quantize_int8(*arguments)
        assert torch.equal(got, expected)
        assert got.stride() == expected.stride()


def test_quantize_takes_halves_and_empty_batches():
    x = torch.randn(2, 8, 4, 4)
    expected = kernels.quantize_int8(x.bfloat16().float(), torch.tensor(0.1), -127, 127)
    assert torch.equal(kernels.quantize_int8(x.bfloat16(), torch.tensor(0.1), -127, 127), expected)
    assert kernels.quantize_int8(x[:0], torch.tensor(0.1), -127, 127).shape == (0, 16, 8)


@pytest.mark.parametrize('product', ['oneDNN', 'float32'])
@pytest.mark.parametrize('values', ['random', 'lowest', 'opposite', 'extremes'])
@pytest.mark.parametrize(
    'shape', [(1, 1, 1, 1), (2, 7, 3, 5), (1, 200, 24, 144), (1, 33, 1027, 17), (2, 64, 2500, 16)]
)
def test_products_are_exact(cpu, monkeypatch, shape, values, product):
    if product == 'float32':
        monkeypatch.setattr(cpu, '_has_exact_product', lambda: False)
    batch, k, channels, outputs = shape
    rows, weight = integers(batch, k, channels), integers(outputs, channels)
    if values == 'lowest':
        rows, weight = torch.full_like(rows, -128), torch.full_like(weight, -128)
    elif values == 'opposite':
        rows, weight = torch.full_like(rows, 127), torch.full_like(weight, -128)
    elif values == 'extremes':
        rows, weight = (torch.where(x < 0, -128, 127).to(torch.int8) for x in (rows, weight))
    scale, bias = torch.rand(outputs), torch.randn(outputs)
    for shift in (None, bias):
        expected = exact_linear(rows, weight, scale, shift)
        assert torch.equal(cpu.int8_linear(rows, weight, scale, shift), expected)
        assert torch.equal(reference._linear(rows, weight, scale, shift), expected)


def test_linear_works_in_blocks_of_rows(cpu, monkeypatch):
    rows, weight = integers(2, 33, 20), integers(10, 20)
    scale, bias = torch.rand(10), torch.randn(10)
    monkeypatch.setattr(cpu, '_SUMS', 70)  # seven rows at a time
    assert torch.equal(
        cpu.int8_linear(rows, weight, scale, bias), exact_linear(rows, weight, scale, bias)
    )


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_rows_may_have_factors(cpu, monkeypatch, dtype):
    rows, weight, factors = integers(2, 33, 20), integers(10, 20), torch.rand(2, 33)
    scale, bias = torch.rand(10, dtype=dtype), torch.randn(10, dtype=dtype)
    monkeypatch.setattr(cpu, '_SUMS', 70)  # seven rows at a time
    expected = exact_linear(rows, weight, scale, None) * factors.to(dtype).unsqueeze(-1) + bias
    assert torch.equal(cpu.int8_linear(rows, weight, scale, bias, factors), expected)
    assert torch.equal(kernels.int8_linear(rows, weight, scale, bias, factors), expected)
    assert torch.equal(reference._linear(rows, weight, scale, bias, factors), expected)


@pytest.mark.parametrize('compute', [torch.float32, torch.float64])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float32])
def test_products_of_another_dtype_are_computed_as_without_and_rounded_once(cpu, dtype, compute):
    rows, weight = integers(2, 33, 20), integers(10, 20)
    rest = (torch.rand(10, dtype=compute), torch.randn(10, dtype=compute), torch.rand(2, 33))
    expected = kernels.int8_linear(rows, weight, *rest).to(dtype)
    for linear in (kernels.int8_linear, cpu.int8_linear, reference._linear):
        y = linear(rows, weight, *rest, dtype=dtype)
        assert y.dtype == dtype and torch.equal(y, expected)


@pytest.mark.parametrize('compute', [torch.float32, torch.float64])
def test_an_offset_is_added_to_the_sums(cpu, monkeypatch, compute):
    """It makes up for rows that are stored 128 lower."""
    rows, weight = integers(2, 33, 20), integers(10, 20)
    scale, bias = torch.rand(10, dtype=compute), torch.randn(10, dtype=compute)
    monkeypatch.setattr(cpu, '_SUMS', 70)  # seven rows at a time
    expected = exact_linear(rows.long() + 128, weight, scale, bias)
    offset = 128 * weight.sum(1, dtype=torch.int32)
    for linear in (kernels.int8_linear, cpu.int8_linear, reference._linear):
        assert torch.equal(linear(rows, weight, scale, bias, None, offset), expected)


@pytest.fixture(params=[True, False], ids=['integers', 'floats'])
def product(request, cpu, monkeypatch):
    """Multiply in integers, which not every processor does exactly, or in float32."""
    if request.param and not cpu._has_exact_product():
        pytest.skip('8-bit products are not exact here')
    monkeypatch.setattr(cpu, '_has_exact_product', lambda: request.param)


@pytest.mark.usefixtures('product')
def test_linear_takes_slices_and_other_dtypes_of_the_scale(cpu):
    rows, weight, scale = integers(2, 9, 20), integers(20, 10).t(), torch.rand(20)[::2]
    assert torch.equal(
        cpu.int8_linear(rows, weight, scale, None), exact_linear(rows, weight, scale, None)
    )
    y = kernels.int8_linear(rows, weight, scale.bfloat16(), torch.zeros(10, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(
        y.float(), exact_linear(rows, weight, scale, None), rtol=0.01, atol=0
    )
    y = kernels.int8_linear(rows, weight, scale.double())
    assert torch.equal(y, exact_linear(rows, weight, scale.double(), None))


def test_empty_batches():
    assert kernels.int8_linear(integers(0, 5, 8), integers(3, 8), torch.ones(3)).shape == (0, 5, 3)


@pytest.mark.usefixtures('product')
def test_results_do_not_depend_on_threads_or_autocast():
    x, scale = torch.randn(2, 70, 9, 33), torch.rand(40)
    rows, weight = integers(2, 300, 1500), integers(40, 1500)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(
                (
                    kernels.quantize_int8(x, torch.tensor(0.02), 0, 255),
                    kernels.int8_linear(rows, weight, scale),
                )
            )
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(kernels.int8_linear(rows, weight, scale), results[0][1])
    assert torch.equal(exact_linear(rows, weight, scale, None), results[0][1])


def test_a_saturating_product_is_noticed(cpu, monkeypatch):
    def saturating(rows, weight):  # pairs of products in 16 bits, as vpmaddubsw adds them
        products = (rows.long() + 128).unsqueeze(2) * weight.long().unsqueeze(0)
        pairs = products.unflatten(1, (-1, 2)).sum(2).clamp(-(2**15), 2**15 - 1)
        return (pairs.sum(1) - 128 * weight.long().sum(0)).int()

    rows, weight = torch.ones(4, 8, dtype=torch.int8), torch.ones(8, 3, dtype=torch.int8)
    assert torch.equal(saturating(rows, weight), torch.full((4, 3), 8, dtype=torch.int32))
    monkeypatch.setattr(torch, '_int_mm', saturating)
    assert not cpu._has_exact_product.__wrapped__()


@pytest.mark.skipif(platform.machine() not in ('x86_64', 'AMD64'), reason='instruction sets of x86')
def test_products_are_exact_without_vnni(cpu):
    program = textwrap.dedent("""
        import torch
        from mmwcc import kernels
        from mmwcc.kernels.cpu.int8 import _has_exact_product
        rows = torch.full((1, 16, 64), 127, dtype=torch.int8)
        weight = torch.full((8, 64), -128, dtype=torch.int8)
        y = kernels.int8_linear(rows, weight, torch.ones(8))
        assert torch.equal(y, torch.full((1, 16, 8), -127.0 * 128 * 64))
        print(_has_exact_product())
    """)
    environment = {**os.environ, 'ONEDNN_MAX_CPU_ISA': 'AVX2'}
    environment.pop('MMWCC_KERNELS', None)
    done = subprocess.run(
        [sys.executable, '-c', program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == 'False'


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('low, high', [(-127, 127), (-128, 127), (-7, 7)])
def test_packed_and_gathered_rows_are_levels_of_the_rows(layout, low, high):
    x = torch.randn(2, 70, 17, 12).to(memory_format=layout)
    step, k = torch.tensor(0.05), 100
    coefficients = importlib.import_module('mmwcc.kernels.transform').analysis(x, 2)
    slot = kernels.select(coefficients.square().sum(-1), k)
    rows = kernels.haar_pack(x, slot, k, 2)
    assert torch.equal(
        kernels.haar_pack_int8(x, slot, k, 2, step, low, high),
        reference.to_int8(rows, step, low, high),
    )
    rows = kernels.gather_rows(coefficients, slot, k)
    got = kernels.gather_rows_int8(coefficients, slot, k, step, low, high)
    assert got.dtype == torch.int8 and torch.equal(got, reference.to_int8(rows, step, low, high))


def test_packed_nan_is_level_zero():
    x = torch.ones(1, 2, 2, 4)
    x[0, 0, 0, 0] = float('nan')
    slot = kernels.select(kernels.haar_norms(x, 1), 8)
    rows = kernels.haar_pack_int8(x, slot, 8, 1, torch.tensor(0.5), -127, 127)
    assert rows[0].tolist() == [[0, 4], [0, 0], [0, 0], [0, 0], [4, 4], [0, 0], [0, 0], [0, 0]]


SLOT = torch.tensor([[0, -1, 1, -1] * 6, [-1, 0, -1, 1] * 6], dtype=torch.int32)
SLOT = torch.where(SLOT >= 0, (SLOT >= 0).cumsum(1).int() - 1, -1)
X, STEP = torch.randn(2, 5, 4, 5), torch.tensor(0.1)
CHECKED = {
    'quantize_int8': [
        (X, STEP, -127, 127),
        (X.contiguous(memory_format=torch.channels_last), STEP, 0, 255),
    ],
    'int8_linear': [
        (
            torch.ones(2, 6, 8, dtype=torch.int8),
            torch.ones(3, 8, dtype=torch.int8),
            torch.ones(3),
            *rest,
        )
        for rest in (
            (None,),
            (torch.ones(3),),
            (None, torch.ones(2, 6), torch.ones(3, dtype=torch.int32), torch.bfloat16),
        )
    ],
    'haar_pack_int8': [
        (X, SLOT, 12, 1, STEP, -127, 127),
        (X.contiguous(memory_format=torch.channels_last), SLOT, 12, 1, STEP, -127, 127),
    ],
    'gather_rows_int8': [(torch.randn(2, 24, 5), SLOT, 12, STEP, -127, 127)],
}


@pytest.mark.parametrize(
    'name, arguments', [(name, case) for name, cases in CHECKED.items() for case in cases]
)
def test_opcheck(name, arguments):
    opcheck(getattr(torch.ops.mmwcc, name), arguments)


@pytest.mark.parametrize('channels', [1, 2, 3])
@pytest.mark.parametrize('outputs', [1, 2, 8])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_linear_of_few_channels(channels, outputs, dtype):
    rows, weight, scale = (
        integers(2, 37, channels),
        integers(outputs, channels),
        torch.ones(outputs, dtype=dtype),
    )
    expected = exact_linear(rows, weight, scale, None)
    for _ in range(3):  # not by chance
        assert torch.equal(kernels.int8_linear(rows, weight, scale), expected)
