"""The Triton kernels against the torch references in float64: what test_triton.py runs in a process of its own.

In Triton's interpreter on the CPU, or on a GPU where there is one: by hand

    MMWCC_KERNELS=triton TRITON_INTERPRET=1 pytest tests/test_kernels/triton_cases.py
    MMWCC_KERNELS=triton pytest tests/test_kernels/triton_cases.py

The operators are called as users do, so that the dispatch and the gradients are tested too. Bounds are on
||error|| / ||reference||. The interpreter rounds to bfloat16 by truncation: twice the bound there.
"""

import importlib
import os

import pytest
import torch
from torch.library import opcheck

from mmwcc import kernels
from mmwcc.kernels.dispatch import chosen_path

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
DEVICE = 'cpu' if INTERPRETED else 'cuda'
REFERENCE = {
    name: importlib.import_module(f'mmwcc.kernels.{name}')
    for name in ('haar', 'select', 'depthwise', 'fake_quant', 'int8')
}
LAUNCH = importlib.import_module('mmwcc.kernels.triton.launch')
BOUNDS = {torch.float32: 1e-6, torch.bfloat16: 8e-3 if INTERPRETED else 4e-3, torch.float16: 5e-4}
MAPS = [
    ((1, 3, 1, 1), 'contiguous'),
    ((2, 24, 17, 9), 'contiguous'),
    ((2, 24, 17, 9), 'channels_last'),
    ((1, 70, 8, 16), 'channels_last'),
    ((2, 2, 1, 21), 'channels_last'),
    ((1, 5, 33, 1), 'contiguous'),
]
LAYOUTS = {
    'contiguous': lambda x: x.contiguous(),
    'channels_last': lambda x: x.contiguous(memory_format=torch.channels_last),
    'transposed': lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    'strided': lambda x: x.contiguous(memory_format=torch.channels_last).repeat_interleave(2, 2)[
        :, :, ::2
    ],
    'channels cut out': lambda x: torch.cat([x, x + 1], 1)[:, : x.shape[1]],
    'expanded batch': lambda x: x[:1].expand_as(x),
}


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch):
    """Fill what is allocated with NaN, or 99, so that a value that a kernel forgets to write cannot pass."""

    def poisoned(allocate):
        def run(*args, **kwargs):
            x = allocate(*args, **kwargs)
            return (
                x.fill_(float('nan') if x.is_floating_point() else 99)
                if x.device.type == DEVICE
                else x
            )

        return run

    monkeypatch.setattr(torch, 'empty', poisoned(torch.empty))
    monkeypatch.setattr(torch, 'empty_like', poisoned(torch.empty_like))
    monkeypatch.setattr(torch.Tensor, 'new_empty', poisoned(torch.Tensor.new_empty))


def randn(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(DEVICE, dtype)


def error(got, expected):
    got, expected = got.double(), expected.double()
    return ((got - expected).norm() / expected.norm().clamp_min(1e-30)).item()


def random_slot(batch, height, width, levels, k):
    positions = kernels.position_count(height, width, levels)
    return REFERENCE['select']._select(
        torch.rand(batch, positions).to(DEVICE), min(k, positions)
    ), min(k, positions)


def check_levels(rows, exact, step, low, high):
    """Integers equal the rounded reference but where that lies half-way between two, to rounding."""
    levels = (exact.double() / step).clamp(low, high)
    near = (levels - levels.floor() - 0.5).abs() < 1e-4
    shift = 128 if high > 127 else 0
    assert rows.dtype == torch.int8
    assert torch.equal(rows[~near].double() + shift, levels.round()[~near])
    assert ((rows.double() + shift - levels).abs() <= 0.5 + 1e-4).all()


def test_dispatch_takes_the_triton_path():
    assert chosen_path(DEVICE) == 'triton'


@pytest.mark.parametrize('levels', [1, 2, 3, 4])
@pytest.mark.parametrize(('shape', 'layout'), MAPS)
def test_haar(shape, layout, levels):
    x, haar = LAYOUTS[layout](randn(*shape)), REFERENCE['haar']
    slot, k = random_slot(shape[0], *shape[2:], levels, 1 + shape[2] * shape[3] // 3)
    assert error(kernels.haar_norms(x, levels), haar._norms(x.double(), levels)) < 1e-6
    rows, expected = kernels.haar_pack(x, slot, k, levels), haar._pack(x.double(), slot, k, levels)
    assert error(rows, expected) < 1e-6
    step = torch.full((1,), 0.02, device=DEVICE)
    check_levels(
        kernels.haar_pack_int8(x, slot, k, levels, step, -100, 127), expected, 0.02, -100, 127
    )
    bias, residual = randn(shape[1]), LAYOUTS[layout](randn(*shape))
    for more in (
        (False, None, None, None),
        (True, residual, -1.0, 0.5),
        (False, residual, 0.0, None),
    ):
        arguments = (slot, bias, *shape[2:], levels, *more)
        y, expected = kernels.haar_unpack(rows, *arguments), haar._unpack(rows.double(), *arguments)
        assert error(y, expected) < 1e-6
        assert y.stride() == expected.stride()


@pytest.mark.parametrize('layout', LAYOUTS)
def test_shrink_is_norms_selection_and_pack(layout):
    x, step = LAYOUTS[layout](randn(2, 20, 9, 10)), torch.full((1,), 0.02, device=DEVICE)
    slot = kernels.select(kernels.haar_norms(x, 2), 40)
    expected = (
        kernels.haar_pack(x, slot, 40, 2),
        kernels.haar_pack_int8(x, slot, 40, 2, step, -127, 127),
    )
    got = kernels.haar_shrink(x, 40, 2), kernels.haar_shrink_int8(x, 40, 2, step, -127, 127)
    for right, (rows, positions) in zip(expected, got, strict=True):
        assert torch.equal(rows, right)
        assert torch.equal(positions, slot)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_haar_of_any_layout(layout):
    x = LAYOUTS[layout](randn(2, 20, 9, 10))
    slot, k = random_slot(2, 9, 10, 2, 40)
    assert error(kernels.haar_norms(x, 2), REFERENCE['haar']._norms(x.double(), 2)) < 1e-6
    rows = kernels.haar_pack(x, slot, k, 2)
    assert error(rows, REFERENCE['haar']._pack(x.double(), slot, k, 2)) < 1e-6
    strided = rows.transpose(1, 2).contiguous().transpose(1, 2)
    y = kernels.haar_unpack(strided, slot, None, 9, 10, 2, True, x)
    assert (
        error(
            y, REFERENCE['haar']._unpack(rows.double(), slot, None, 9, 10, 2, True, x, None, None)
        )
        < 1e-6
    )


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('levels', [2, 3, 4])
def test_haar_in_half_precision(dtype, levels):
    x = LAYOUTS['channels_last'](randn(2, 40, 9, 16, dtype=dtype))
    slot, k = random_slot(2, 9, 16, levels, 50)
    assert error(kernels.haar_norms(x, levels), REFERENCE['haar']._norms(x.double(), levels)) < 1e-6
    rows = kernels.haar_pack(x, slot, k, levels)
    assert rows.dtype == dtype
    assert error(rows, REFERENCE['haar']._pack(x.double(), slot, k, levels)) < BOUNDS[dtype]
    y = kernels.haar_unpack(rows, slot, None, 9, 16, levels, True, x)
    expected = REFERENCE['haar']._unpack(
        rows.double(), slot, None, 9, 16, levels, True, x, None, None
    )
    assert y.dtype == dtype
    assert error(y, expected) < BOUNDS[dtype]


def test_seven_levels_recurse_twice():
    x = randn(1, 3, 5, 70)
    slot, k = random_slot(1, 5, 70, 7, 3000)
    rows = kernels.haar_pack(x, slot, k, 7)
    assert error(rows, REFERENCE['haar']._pack(x.double(), slot, k, 7)) < 1e-6
    y = kernels.haar_unpack(rows, slot, None, 5, 70, 7, False)
    assert (
        error(
            y,
            REFERENCE['haar']._unpack(rows.double(), slot, None, 5, 70, 7, False, None, None, None),
        )
        < 1e-6
    )


def test_more_channels_than_a_block():
    x = LAYOUTS['channels_last'](randn(1, 300, 8, 8))
    slot, k = random_slot(1, 8, 8, 3, 64)
    assert k == 64
    assert error(kernels.haar_norms(x, 3), REFERENCE['haar']._norms(x.double(), 3)) < 1e-6
    y = kernels.haar_unpack(kernels.haar_pack(x, slot, k, 3), slot, None, 8, 8, 3, True)
    assert error(y, x) < 1e-6


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_nan_and_infinity_stay_visible(value):
    x = torch.zeros(1, 2, 8, 16, device=DEVICE)
    x[0, 1, 3, 9] = value
    norms = kernels.haar_norms(x, 3)
    assert not norms[0, 64:].isfinite().all()
    assert not norms[0, :64].any(), 'other tiles are not touched'
    slot = kernels.select(norms, 10)
    y = kernels.haar_unpack(kernels.haar_pack(x, slot, 10, 3), slot, None, 8, 16, 3, False)
    assert not y[0, 1, 3, 9].isfinite()
    coefficients, norms = kernels.depthwise_haar(x, torch.ones(2, 1, 3, 3, device=DEVICE), None, 3)
    assert not coefficients[0, 64:, 1].isfinite().all()
    assert not norms[0, 64:].isfinite().all()


def test_gradients_are_those_of_the_reference():
    x = LAYOUTS['channels_last'](randn(2, 20, 9, 10))
    slot, k = random_slot(2, 9, 10, 3, 60)
    weight, bias = randn(16, 20), randn(16)

    def gradients(dtype):
        leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in (x, weight, bias)]
        rows = torch.nn.functional.linear(kernels.haar_pack(leaves[0], slot, k, 3), leaves[1])
        y = kernels.haar_unpack(rows, slot, leaves[2], 9, 10, 3, True, None, -1.0, 1.0)
        return torch.autograd.grad(y.square().sum(), leaves)

    for got, expected in zip(gradients(torch.float32), gradients(torch.float64), strict=True):
        assert error(got, expected) < 2e-6
        assert got.stride() == expected.stride()


def test_offsets_exceed_32_bits(tmp_path):
    # Two images 2**31 elements apart: float16 in a file of which only the images take room on the disk.
    if not INTERPRETED:
        memory = torch.zeros(2**31 + 64, dtype=torch.float16, device=DEVICE)
    else:
        memory = torch.from_file(
            str(tmp_path / 'map'), shared=True, size=2**31 + 64, dtype=torch.float16
        )
    x = memory.as_strided((2, 1, 8, 8), (2**31, 64, 8, 1))
    x.copy_(randn(2, 1, 8, 8))
    assert error(kernels.haar_norms(x, 3), REFERENCE['haar']._norms(x.double(), 3)) < 1e-6


NORMS = {
    'random': lambda n: torch.rand(2, n),
    'ties': lambda n: torch.randint(0, 3, (2, n)).float(),
    'all zero': lambda n: torch.zeros(2, n),
    'all equal': lambda n: torch.full((2, n), 0.3),
    'one last bit apart': lambda n: torch.randint(10**9, 10**9 + 2, (2, n), dtype=torch.int32).view(
        torch.float32
    ),
    'NaN, infinity and negative zero': lambda n: torch.tensor(
        [[float('nan'), -0.0, float('inf'), 0.0, 1e-45, 3e38]]
    ).repeat(2, n // 6 + 1)[:, :n],
    'a NaN of another payload': lambda n: torch.full((2, n), 2139095041, dtype=torch.int32).view(
        torch.float32
    ),
}


@pytest.mark.parametrize('programs', ['one', 'many'])
@pytest.mark.parametrize('kind', NORMS)
def test_select(kind, programs):
    sizes = dict(
        one_program=2**30 if programs == 'one' else 0,
        block=64,
        many_block=64,
        num_warps=4,
        many_warps=4,
    )
    for n in (1, 7, 64, 150) if programs == 'one' else (3, 150):
        norms = NORMS[kind](n).to(DEVICE)
        for k in sorted({1, max(1, n // 3), n}):
            with LAUNCH.forced(dict(select=dict(float32=sizes))):
                slot = kernels.select(norms, k)
            assert torch.equal(slot, REFERENCE['select']._select(norms, k))


@pytest.mark.parametrize('n', [9216, 40000])  # one program an image, and many
def test_select_with_the_shipped_configuration(n):
    norms = (torch.rand(2, n) * 1000).round().to(DEVICE)
    assert torch.equal(kernels.select(norms, n // 4), REFERENCE['select']._select(norms, n // 4))


@pytest.mark.parametrize(
    ('size', 'dilation', 'levels'),
    [(1, 1, 1), (3, 1, 3), (3, 2, 2), (5, 1, 3), (5, 3, 4), (7, 2, 1)],
)
@pytest.mark.parametrize(
    ('shape', 'layout'),
    [((2, 20, 9, 7), 'contiguous'), ((1, 70, 7, 9), 'channels_last'), ((1, 20, 1, 8), 'strided')],
)
def test_depthwise(shape, layout, size, dilation, levels):
    x, weight, bias = (
        LAYOUTS[layout](randn(*shape)),
        randn(shape[1], 1, size, size),
        randn(shape[1]),
    )
    for more in ((None, None, None), (bias, 0.5, 6.0)):
        coefficients, norms = kernels.depthwise_haar(
            x, weight, more[0], levels, dilation, *more[1:]
        )
        expected = REFERENCE['depthwise']._depthwise(
            x.double(), weight, more[0], dilation, levels, *more[1:]
        )
        assert error(coefficients, expected[0]) < 1e-6
        assert error(norms, expected[1]) < 1e-6
    slot, k = random_slot(shape[0], *shape[2:], levels, 20)
    rows = kernels.gather_rows(coefficients, slot, k)
    assert torch.equal(rows, REFERENCE['depthwise']._gather(coefficients, slot, k))
    step = torch.full((1,), 0.03, device=DEVICE)
    check_levels(
        kernels.gather_rows_int8(coefficients, slot, k, step, -127, 127), rows, 0.03, -127, 127
    )


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('levels', [3, 4])
def test_depthwise_in_half_precision(dtype, levels):
    x, weight = (
        LAYOUTS['channels_last'](randn(1, 40, 9, 13, dtype=dtype)),
        randn(40, 1, 3, 3, dtype=dtype),
    )
    coefficients, norms = kernels.depthwise_haar(x, weight, None, levels, 1, 0.0)
    expected = REFERENCE['depthwise']._depthwise(x.double(), weight, None, 1, levels, 0.0, None)
    assert coefficients.dtype == dtype
    assert error(coefficients, expected[0]) < BOUNDS[dtype]
    assert error(norms, expected[1]) < 1e-4  # of sums of two terms in bfloat16
    slot, k = random_slot(1, 9, 13, levels, 60)
    rows = kernels.gather_rows(coefficients, slot, k)
    assert torch.equal(rows, REFERENCE['depthwise']._gather(coefficients, slot, k))


FAKE_QUANT = [
    (8, 1, False, True),
    (8, 0, False, True),
    (4, 1, True, False),
    (2, 0, True, False),
    (16, 1, True, True),
]


@pytest.mark.parametrize(('bits', 'signed', 'symmetric', 'clip_gradient'), FAKE_QUANT)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_fake_quant(layout, bits, signed, symmetric, clip_gradient):
    x, grad, reference = (
        LAYOUTS[layout](randn(2, 6, 57, 31)),
        randn(2, 6, 57, 31),
        REFERENCE['fake_quant'],
    )
    arguments = (
        x,
        torch.tensor(1.1, device=DEVICE),
        torch.tensor(bool(signed), device=DEVICE),
        bits,
        symmetric,
        clip_gradient,
        0.5,
    )
    y, expected = kernels.fake_quant(*arguments), reference._fake_quant(*arguments)
    assert torch.equal(y, expected)
    assert y.stride() == expected.stride()
    (grad_x, grad_clip), expected = (
        run(grad, *arguments)
        for run in (kernels.fake_quant_backward, reference._fake_quant_backward)
    )
    assert torch.equal(grad_x, expected[0])
    assert grad_x.stride() == expected[0].stride()
    exact = reference._fake_quant_backward(
        grad.double(), x.double(), arguments[1].double(), *arguments[2:]
    )[1]
    assert grad_clip.shape == expected[1].shape
    torch.testing.assert_close(grad_clip.double(), exact, rtol=1e-4, atol=1e-4)
    assert torch.equal(grad_clip, kernels.fake_quant_backward(grad, *arguments)[1])


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_fake_quant_in_half_precision(dtype):
    x, grad = randn(40, 60, dtype=dtype), randn(40, 60, dtype=dtype)
    arguments = (
        torch.ones(1, device=DEVICE),
        torch.ones(1, dtype=torch.uint8, device=DEVICE),
        8,
        False,
        True,
        1.0,
    )
    y, reference = kernels.fake_quant(x, *arguments), REFERENCE['fake_quant']
    assert y.dtype == dtype
    assert error(y, reference._fake_quant(x, *arguments)) < BOUNDS[dtype]
    grad_x, grad_clip = kernels.fake_quant_backward(grad, x, *arguments)
    expected = reference._fake_quant_backward(grad, x, *arguments)
    assert torch.equal(grad_x, expected[0])
    torch.testing.assert_close(grad_clip, expected[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('symmetric', [True, False])
@pytest.mark.parametrize('signed', [0, 1])
def test_fake_quant_without_the_rounding_error_in_the_gradient_of_the_clip(signed, symmetric):
    x, grad = randn(3, 7, 40, 31), randn(3, 7, 40, 31)
    x[0, 0, 0, :4] = torch.tensor([1.1, -1.1, 1.1, 0.0], device=DEVICE)  # at the clips
    arguments = (
        x,
        torch.tensor([1.1], device=DEVICE),
        torch.tensor(signed, device=DEVICE),
        4,
        symmetric,
        True,
        0.5,
        False,
    )
    (grad_x, grad_clip), expected = (
        run(grad, *arguments)
        for run in (kernels.fake_quant_backward, REFERENCE['fake_quant']._fake_quant_backward)
    )
    assert torch.equal(grad_x, expected[0])
    torch.testing.assert_close(grad_clip, expected[1], rtol=1e-4, atol=1e-4)


def test_the_reference_serves_several_clips():
    x, grad, clips = randn(6, 5, 3, 3), randn(6, 5, 3, 3), 0.5 + torch.rand(6, 1, 1, 1).to(DEVICE)
    arguments = (x, clips, torch.tensor(1, device=DEVICE), 4, True, False, 0.5)
    assert torch.equal(
        kernels.fake_quant(*arguments), REFERENCE['fake_quant']._fake_quant(*arguments)
    )
    got = kernels.fake_quant_backward(grad, *arguments)
    for one, expected in zip(
        got, REFERENCE['fake_quant']._fake_quant_backward(grad, *arguments), strict=True
    ):
        assert torch.equal(one, expected)


def test_fake_quant_keeps_nan_and_clips_infinity():
    x = torch.tensor([float('nan'), float('inf'), -float('inf')], device=DEVICE)
    arguments = (
        torch.tensor(1.5, device=DEVICE),
        torch.tensor(1, device=DEVICE),
        8,
        True,
        True,
        1.0,
    )
    y = kernels.fake_quant(x, *arguments)
    assert y[0].isnan() and y[1:].tolist() == [1.5, -1.5]
    assert kernels.fake_quant_backward(torch.ones_like(x), x, *arguments)[1].isnan()


@pytest.mark.parametrize(('low', 'high'), [(-128, 127), (-127, 127), (0, 255)])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('shape', [(2, 70, 7, 9), (1, 3, 1, 80), (2, 20, 33, 1)])
def test_quantize_int8(shape, layout, low, high):
    x, step = LAYOUTS[layout](randn(*shape)), torch.full((1,), 0.013, device=DEVICE)
    assert torch.equal(
        kernels.quantize_int8(x, step, low, high), REFERENCE['int8']._quantize(x, step, low, high)
    )


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_quantize_int8_of_half_precision(dtype):
    x, step = randn(1, 20, 5, 7, dtype=dtype), torch.full((1,), 0.013, device=DEVICE)
    assert torch.equal(
        kernels.quantize_int8(x, step, 0, 255), REFERENCE['int8']._quantize(x, step, 0, 255)
    )


def test_nan_is_level_0():
    x = torch.tensor([float('nan'), float('inf'), -float('inf'), 0.5, 1.5], device=DEVICE).reshape(
        1, 5, 1, 1
    )
    step = torch.ones(1, device=DEVICE)
    assert kernels.quantize_int8(x, step, -128, 127).flatten().tolist() == [0, 127, -128, 0, 2]
    assert kernels.quantize_int8(x, step, 0, 255).flatten().tolist() == [
        -128,
        127,
        -128,
        -128,
        -126,
    ]


@pytest.mark.parametrize(
    ('batch', 'k', 'channels', 'outputs'), [(1, 1, 1, 1), (2, 70, 24, 40), (1, 200, 300, 130)]
)
@pytest.mark.parametrize('with_bias', [False, True])
def test_int8_linear(batch, k, channels, outputs, with_bias):
    rows = torch.randint(-128, 128, (batch, k, channels), dtype=torch.int8).to(DEVICE)
    weight = torch.randint(-128, 128, (outputs, channels), dtype=torch.int8).to(DEVICE)
    scale, bias = torch.rand(outputs).to(DEVICE), randn(outputs) if with_bias else None
    y, expected = (
        kernels.int8_linear(rows, weight, scale, bias),
        REFERENCE['int8']._linear(rows, weight, scale, bias),
    )
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)
    for dtype in (torch.bfloat16, torch.float16):
        scale = (scale / 10).to(dtype)
        y = kernels.int8_linear(rows, weight, scale, None)
        assert y.dtype == dtype
        assert (
            error(y, REFERENCE['int8']._linear(rows, weight, scale.double(), None)) < BOUNDS[dtype]
        )


def test_int8_linear_is_exact():
    rows = torch.full((1, 3, 2000), -128, dtype=torch.int8, device=DEVICE)
    weight = torch.full((2, 2000), 127, dtype=torch.int8, device=DEVICE)
    for dtype in (torch.float32, torch.float64):
        y = kernels.int8_linear(rows, weight, torch.ones(2, dtype=dtype, device=DEVICE), None)
        assert y.dtype == dtype
        assert torch.equal(y, torch.full_like(y, -128 * 127 * 2000))


def test_opcheck():
    x = randn(2, 3, 8, 9).requires_grad_()
    slot, k = random_slot(2, 8, 9, 2, 20)
    rows, step, ops = randn(2, k, 3).requires_grad_(), torch.ones(1, device=DEVICE), torch.ops.mmwcc
    bias, weight = randn(3).requires_grad_(), randn(3, 1, 3, 3).requires_grad_()
    opcheck(ops.haar_norms.default, (x.detach(), 2))
    opcheck(ops.haar_pack.default, (x, slot, k, 2))
    opcheck(ops.haar_pack_int8.default, (x.detach(), slot, k, 2, step, -127, 127))
    opcheck(ops.haar_shrink.default, (x, k, 2))
    opcheck(ops.haar_shrink_int8.default, (x.detach(), k, 2, step, -127, 127))
    opcheck(ops.haar_unpack.default, (rows, slot, bias, 8, 9, 2, True, x, -1.0, 1.0))
    opcheck(ops.select.default, (torch.rand(2, 50).to(DEVICE), 7))
    opcheck(ops.depthwise_haar.default, (x, weight, bias, 1, 2, 0.0, 6.0))
    coefficients = randn(2, slot.shape[1], 3).requires_grad_()
    opcheck(ops.gather_rows.default, (coefficients, slot, k))
    opcheck(ops.gather_rows_int8.default, (coefficients.detach(), slot, k, step, -127, 127))
    clip, signed = torch.ones(1, device=DEVICE).requires_grad_(), torch.tensor(True, device=DEVICE)
    for values in (x, x.detach()[:, :, ::2].requires_grad_()):
        opcheck(ops.fake_quant.default, (values, clip, signed, 8, False, True, 1.0))
    opcheck(ops.quantize_int8.default, (x.detach(), step, 0, 255))
    int8 = torch.randint(-128, 128, (2, 5, 16), dtype=torch.int8).to(DEVICE)
    opcheck(ops.int8_linear.default, (int8, int8[0, :4], randn(4), randn(4)))
