"""Work on maps of bytes: known values, kernels against references, operators for exporters."""

import importlib

import pytest
import torch
from torch.library import opcheck

from mmwcc import kernels

reference = importlib.import_module('mmwcc.kernels.byte_map')
LAYOUTS = [torch.contiguous_format, torch.channels_last]
SIGNED, UNSIGNED, NIBBLE = (0.07, 128, 1, 255), (0.05, 0, 0, 255), (0.4, 128, 120, 135)

REFERENCES = dict(
    round_map=reference._round,
    map_values=reference._values,
    rescale_map=reference._rescale,
    add_maps=reference._add,
    mean_map=reference._mean,
    cat_maps=reference._cat,
)


@pytest.fixture
def cpu():
    pytest.importorskip('numba', reason='the kernels are numba; without it the references run')
    return importlib.import_module('mmwcc.kernels.cpu.byte_map')


def random_bytes(*shape, layout=torch.contiguous_format):
    return torch.randint(0, 256, shape, dtype=torch.uint8).contiguous(memory_format=layout)


def test_rounding_is_half_to_even_clamps_and_turns_nan_into_zero():
    x = torch.tensor([-9.0, -1.25, -0.75, 0.25, 0.75, 9.0, float('inf'), float('nan')])
    assert kernels.round_map(x, 0.5, 128, 124, 131).tolist() == [
        124, 126, 126, 128, 130, 131, 131, 128,
    ]  # fmt: skip
    assert kernels.round_map(x, 0.5, 0, 0, 3).tolist() == [0, 0, 0, 0, 2, 3, 3, 0]


def test_bytes_stand_for_multiples_of_the_step():
    levels = torch.tensor([0, 127, 128, 255], dtype=torch.uint8)
    assert kernels.map_values(levels, 0.5, 128).tolist() == [-64.0, -0.5, 0.0, 63.5]
    assert kernels.map_values(levels, 0.5, 0).tolist() == [0.0, 63.5, 64.0, 127.5]


def test_rescaling_and_sums_round_the_values():
    levels = torch.tensor([126, 128, 131, 255], dtype=torch.uint8)  # -2, 0, 3, 127
    assert kernels.rescale_map(levels, 0.5, 128, 1.0, 0, 0, 15).tolist() == [0, 0, 2, 15]
    a, b = (levels, 0.5, 128), (torch.full((4,), 3, dtype=torch.uint8), 1.0, 0)
    assert kernels.add_maps(a, b, False, 1.0, 128, 0, 255).tolist() == [130, 131, 132, 194]
    low = (torch.zeros(4, dtype=torch.uint8), 0.5, 128)
    assert kernels.add_maps(low, b, True, 1.0, 128, 0, 255).tolist() == [128] * 4


def test_concatenation_rounds_to_one_grid_and_copies_what_is_on_it():
    levels = torch.tensor([126, 131], dtype=torch.uint8).reshape(1, 1, 1, 2)  # -2 and 3
    joined = kernels.cat_maps([(levels, 0.5, 128), (levels, 1.0, 128)], 1.0, 128, 127, 255)
    assert joined.tolist() == [[[[127, 130]], [[126, 131]]]]


def cases(layout, size=(7, 3)):
    x = torch.randn(2, 5, *size) * 9
    x[0, 0, 0, 0] = float('nan')
    a, b = (random_bytes(2, 5, *size, layout=layout) for _ in range(2))
    return dict(
        round_map=(x.contiguous(memory_format=layout), *SIGNED),
        map_values=(a, 0.07, 128),
        rescale_map=(a, 0.07, 128, *NIBBLE),
        add_maps=(a, b, 0.07, 128, 0.05, 0, True, *UNSIGNED),
        mean_map=(a, 0.07, 128),
        cat_maps=(a, [b, a[:, :2]], [0.07, 0.05, 0.4], [128, 0, 128], *NIBBLE, *size, False),
    )


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('name', REFERENCES)
def test_operators_pass_the_checks_of_torch(name, layout):
    opcheck(getattr(torch.ops.mmwcc, name).default, cases(layout)[name])


@pytest.mark.parametrize('threads', [1, 2])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('name', REFERENCES)
def test_kernels_equal_the_references(cpu, poison, name, layout, threads):
    poison(cpu)
    arguments = cases(layout, (70, 60))[name]  # more than two chunks
    expected = REFERENCES[name](*arguments)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    got = getattr(cpu, name)(*arguments)
    torch.set_num_threads(before)
    assert got.shape == expected.shape and got.dtype == expected.dtype
    assert torch.equal(got, expected)
    assert got.stride() == expected.stride()


@pytest.mark.parametrize('align_corners', [False, True])
def test_a_concatenation_resizes_maps_of_other_sizes(align_corners):
    small, large, single = (
        random_bytes(2, 5, 4, 3),
        random_bytes(2, 70, 9, 8),
        random_bytes(2, 3, 1, 1),
    )
    maps = [(small, 0.07, 128), (large, 0.05, 0), (single, 0.05, 0)]
    got = kernels.cat_maps(maps, *UNSIGNED, size=(9, 8), align_corners=align_corners)
    resized = [
        (kernels.resize_map(levels, 9, 8, align_corners), step, zero) for levels, step, zero in maps
    ]
    assert torch.equal(got, kernels.cat_maps(resized, *UNSIGNED))
    assert torch.equal(got[:, 75:], single.expand(-1, -1, 9, 8))


def test_means_are_exact_before_they_are_scaled():
    levels = random_bytes(2, 130, 7, 5, layout=torch.channels_last)
    means = kernels.mean_map(levels, 0.07, 128)
    exact = 0.07 * (levels.double().mean((2, 3), keepdim=True) - 128)
    assert means.shape == (2, 130, 1, 1) and torch.equal(means, exact.float())


def test_strided_maps_and_maps_of_two_layouts(cpu):
    levels = random_bytes(2, 6, 8, 5, layout=torch.channels_last)
    part, other = levels[:, 1:4, ::2], random_bytes(2, 3, 4, 5)
    arguments = (part, other, 0.07, 128, 0.05, 0, False, *SIGNED)
    assert torch.equal(cpu.add_maps(*arguments), reference._add(*arguments))
    assert torch.equal(cpu.map_values(part, 0.07, 128), reference._values(part, 0.07, 128))
    x = torch.randn(2, 6, 8, 5)[:, ::2]
    assert torch.equal(cpu.round_map(x, *SIGNED), reference._round(x, *SIGNED))


def test_empty_maps(cpu):
    empty = torch.zeros(0, 3, 4, 4, dtype=torch.uint8)
    assert kernels.map_values(empty, 0.1, 0).shape == (0, 3, 4, 4)
    assert kernels.round_map(empty.float(), *SIGNED).shape == (0, 3, 4, 4)
    assert kernels.rescale_map(empty, 0.1, 0, *SIGNED).shape == (0, 3, 4, 4)
    assert kernels.add_maps((empty, 0.1, 0), (empty, 0.1, 0), False, *SIGNED).numel() == 0
    assert kernels.cat_maps([(empty, 0.1, 0)] * 2, *SIGNED).shape == (0, 6, 4, 4)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16, torch.bfloat16])
def test_values_of_other_dtypes_are_rounded_in_float32(dtype):
    x = torch.randn(2, 3, 4, 5).to(dtype)
    assert torch.equal(kernels.round_map(x, *SIGNED), kernels.round_map(x.float(), *SIGNED))
