"""How tokens lie on maps, and how many levels suit a map."""

import pytest

from mmwcc.kernels import position_count
from mmwcc.layers import TokenGrid, fitting_levels, token_maps


@pytest.mark.parametrize(
    'size, levels',
    [((1, 9), 0), ((2, 9), 1), ((7, 7), 2), ((8, 8), 3), ((12, 12), 2), ((14, 14), 1)],
)
def test_levels_follow_the_size_and_the_padding(size, levels):
    assert fitting_levels(size, 3) == levels
    assert fitting_levels(size, 1) == min(levels, 1)


def test_no_more_than_a_quarter_is_padded_beyond_one_level():
    for height in range(2, 40):
        size = height, 33
        deepest = position_count(*size, fitting_levels(size, 3))
        assert deepest <= 1.25 * position_count(*size, 1)


@pytest.mark.parametrize(
    'grid, length, expected',
    [
        (TokenGrid([(3, 4)]), 12, [(3, 4)]),
        (TokenGrid([(3, 4)]), 13, []),
        (TokenGrid([(3, 4)], extra=1), 13, [(1, 1), (3, 4)]),
        (TokenGrid([(3, 4)], extra=1), 12, [(3, 4)]),
        (TokenGrid([(3, 4)], extra=1), 14, []),
        (TokenGrid([(3, 4), (2, 2)]), 16, [(3, 4), (2, 2)]),
        (TokenGrid(), 12, []),
    ],
)
def test_tokens_are_divided_among_maps(grid, length, expected):
    assert token_maps((2, length, 8), grid) == expected


def test_a_map_is_a_map_unless_another_one_was_announced():
    assert token_maps((2, 5, 6, 8), None) == [(5, 6)]
    assert token_maps((2, 5, 6, 8), TokenGrid([(5, 6)])) == [(5, 6)]
    # Windows: batch, windows, tokens of a window and channels.
    assert token_maps((2, 5, 49, 8), TokenGrid([(7, 7)])) == [(7, 7)]
    assert token_maps((2, 3, 4, 7, 7, 8), TokenGrid([(7, 7)])) == [(7, 7)]
    assert token_maps((2, 5, 6, 8), TokenGrid([(7, 7)])) == []


def test_rows_lie_on_no_map():
    assert token_maps((12, 8), TokenGrid([(3, 4)])) == token_maps((2, 12, 8), None) == []
