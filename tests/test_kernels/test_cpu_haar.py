"""The Haar operators in numba against their references."""

import importlib
import math

import pytest
import torch

from mmwcc import kernels

pytest.importorskip(
    'numba', reason='the kernels are numba; without it the references run, which other tests cover'
)

haar = importlib.import_module('mmwcc.kernels.haar')
select = importlib.import_module('mmwcc.kernels.select')
cpu = importlib.import_module('mmwcc.kernels.cpu.haar')
bands = importlib.import_module('mmwcc.kernels.cpu.bands')

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
def _poisoned_memory(poison):
    poison(cpu)


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

    assert bands._bands(tuple(x.shape), 3, 1)[1].length == 128
    assert all(torch.equal(a, b) for a, b in zip(results(1), results(8), strict=True))
    assert bands._bands(tuple(x.shape), 3, 8)[1].length == 32


def test_haar_kernels_keep_nan_and_infinity_visible():
    x = torch.zeros(1, 2, 8, 16)
    x[0, 0, 0, 0], x[0, 1, 0, 8] = float('nan'), float('inf')
    norms = cpu.haar_norms(x, 3)[0]
    assert norms[:64].isnan().any()
    assert not norms[64:].isfinite().all()
