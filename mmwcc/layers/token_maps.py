"""How the tokens of a linear layer lie on maps.

A linear layer gets tokens, shape (B, L, C), and not their height and width. The module around it
knows them. :class:`TokenGrid` is what that module announces in each of its calls, and what the
linear layers inside it read; :mod:`mmwcc.model_tree.token_grids` connects the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from mmwcc.kernels import position_count

__all__ = ['TokenGrid', 'TokenMap', 'fitting_levels', 'token_maps']

_PADDING = 1.25
"""How many times the positions of one level a deeper transform may have, through its padding."""


class TokenMap(NamedTuple):
    """Consecutive tokens of each image.

    Attributes:
        size: Height and width of their map; (1, count) for tokens that lie on none.
        levels: Depth of the transform, 0 if they are multiplied as they are.
    """

    size: tuple[int, int]
    levels: int

    # No property, because compilers up to torch 2.8 cannot trace one of a tuple.
    def tokens(self) -> int:
        """Return the number of tokens."""
        return self.size[0] * self.size[1]


def fitting_levels(size: tuple[int, int], most: int) -> int:
    """Return how many levels suit a map.

    They are the most whose patch is no larger than the map and whose padding adds at most a quarter
    to the positions of one level. Windows of 7x7 tokens, for example, are padded to 8x8 by one
    level already, and by two. Windows of 14x14 would be padded to 16x16 by two.

    Args:
        size: Height and width.
        most: The most levels that are allowed.

    Returns:
        The number of levels, or 0 for maps of one pixel in height or width.

    Example:
        >>> [fitting_levels((side, side), 3) for side in (1, 7, 12, 14, 32)]
        [0, 2, 2, 1, 3]
    """
    if min(size) < 2:
        return 0
    allowed = _PADDING * position_count(*size, 1)
    levels = 1
    while (
        levels < most and 2 << levels <= min(size) and position_count(*size, levels + 1) <= allowed
    ):
        levels += 1
    return levels


class TokenGrid:
    """The maps that the tokens of a module lie on, as its latest call announced them.

    The tokens of each image are those of all maps, one map after the other and each row by row.
    Class tokens may come before them.

    Args:
        sizes: Height and width of each map. Defaults to none, which are announced later.
        extra: The most tokens that lie on no map. They come first, as class tokens do. Defaults
            to 0.
    """

    def __init__(self, sizes: Iterable[tuple[int, int]] = (), extra: int = 0) -> None:
        self.sizes, self.extra = tuple(sizes), extra

    def divide(self, length: int) -> list[tuple[int, int]]:
        """Return the sizes of the maps of ``length`` tokens; tokens on no map have size (1, count).

        Returns:
            The sizes in the order of the tokens, or none if the number of tokens does not fit.
        """
        extra = length - sum(height * width for height, width in self.sizes)
        if not self.sizes or not 0 <= extra <= self.extra:
            return []
        return [(1, extra), *self.sizes] if extra else [*self.sizes]


def token_maps(shape: Sequence[int], grid: TokenGrid | None) -> list[tuple[int, int]]:
    """Return the maps that an input of a linear layer consists of, for each image.

    Args:
        shape: Shape of the input, (..., C).
        grid: What the module around the layer announced, or None if no module does.

    Returns:
        Height and width of each map, (1, count) for tokens on no map, or none if the maps are not
        known.

    Example:
        >>> token_maps((2, 65, 8), TokenGrid([(8, 8)], extra=1))
        [(1, 1), (8, 8)]
        >>> token_maps((2, 8, 8, 4), None), token_maps((2, 100, 4), TokenGrid([(8, 8)]))
        ([(8, 8)], [])
    """
    shape = [int(size) if isinstance(size, Tensor) else size for size in shape]  # while tracing
    size = tuple(shape[-3:-1])
    if grid is None:
        return [(shape[1], shape[2])] if len(shape) == 4 else []
    if len(shape) > 3 and grid.sizes == (size,):
        return [*grid.sizes]
    return grid.divide(shape[-2]) if len(shape) > 2 else []
