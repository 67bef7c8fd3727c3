"""What linear layers get: whether their tokens lie on maps that a transform suits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

from torch import nn

from mmwcc.layers import TokenGrid, fitting_levels, token_maps

__all__ = ['TokenInput', 'off_maps', 'token_recorder']


class TokenInput(NamedTuple):
    """The input of one call of a linear layer.

    Attributes:
        shape: Its shape, (..., C).
        maps: Height and width of the maps of each image, or none if they are not known.
        announced: Whether a module around the layer announces maps.
    """

    shape: tuple[int, ...]
    maps: tuple[tuple[int, int], ...]
    announced: bool

    @property
    def images(self) -> int:
        """Number of images or windows that have such maps."""
        return prod(self.shape[:-1]) // sum(map(prod, self.maps))


def token_recorder(
    calls: dict[Any, list[Any]], grids: dict[nn.Module, TokenGrid]
) -> Callable[[nn.Module, tuple, Any], None]:
    """Return a forward hook for linear layers that appends the input of each call.

    Args:
        calls: Where it is appended, by layer.
        grids: What modules around the layers announce.
    """

    def record(module: Any, inputs: tuple, output: Any) -> None:
        shape, grid = (*output.shape[:-1], module.in_features), grids.get(module)
        maps = tuple(token_maps(shape, grid))
        calls.setdefault(module, []).append(TokenInput(shape, maps, grid is not None))

    return record


def off_maps(first: Sequence[TokenInput], second: Sequence[TokenInput], levels: int) -> str:
    """Return why a transform does not suit the tokens of a layer, or '' if it does.

    A map that no module announces is known by its shape, (B, H, W, C), alone. Other things have
    four dimensions too, but do not grow with the image.

    Args:
        first: The inputs in a run on one image.
        second: The inputs in a run on a wider image.
        levels: The most levels of the transform.

    Example:
        >>> off_maps([TokenInput((1, 100, 8), (), False)], [TokenInput((1, 100, 8), (), False)], 3)
        'its tokens, 1x100x8, lie on no known maps'
    """
    for call in [*first, *second]:
        if not call.maps:
            return f'its tokens, {"x".join(map(str, call.shape))}, lie on no known maps'
    fixed = [call.maps for call in first] == [call.maps for call in second]
    if fixed and not all(call.announced for call in first):
        shape = 'x'.join(map(str, first[0].shape))
        return f'its input, {shape}, does not grow with the image as maps do'
    sizes = [size for call in first for size in call.maps]
    if fixed and not any(fitting_levels(size, levels) for size in sizes):
        return 'works on one pixel' if {(1, 1)} == {*sizes} else 'works on maps of one row'
    return ''
