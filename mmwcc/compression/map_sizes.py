"""The sizes of the feature maps that the layers of a model compute."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from mmwcc.layers import TokenGrid
from mmwcc.model_tree import (
    announced_grids,
    example_input,
    hooks_off,
    run_on_image,
    run_on_zeros,
    twin,
)

from .token_inputs import TokenInput, token_recorder

__all__ = ['FixedMaps', 'Sizes', 'fixed_maps', 'map_sizes']

Sizes = dict[Any, list[Any]]
"""The feature maps of each layer, one entry per call.

For convolutions, they are height and width of the output. For linear layers, they are the
:class:`~.token_inputs.TokenInput`.
"""

# Two images of different widths. A map of the second is wider than one of the first unless its size
# does not depend on the image, down to maps of 1/128 of the width.
_IMAGES = (64, 64), (64, 256)


def map_sizes(model: nn.Module, input_shape: tuple[int, ...]) -> Sizes:
    """Run a model once on zeros and record the sizes of the feature maps its layers compute.

    Models of mmengine run in mode 'tensor'. The model does not change: it runs in eval mode without
    gradients, and training flags and random state are restored afterwards.

    Args:
        model: Any module that takes one batch of images.
        input_shape: Height and width, or channels, height and width. The channels default to those
            of the first convolution.

    Returns:
        The sizes. Layers that were not called are missing.

    Raises:
        ValueError: If the model cannot run on such an input.
    """
    sizes: Sizes = {}
    with announced_grids(model) as grids:
        run_on_zeros(
            'only_if_faster',
            model,
            input_shape,
            partial(_record, model, sizes, grids),
            purpose='show the sizes of its maps',
            remedy='Give the shape of its input, or drop only_if_faster and keep layers dense by '
            'rules.',
        )
    return sizes


def _record(model: nn.Module, sizes: Sizes, grids: dict[nn.Module, TokenGrid]) -> None:
    """Register hooks that record the sizes of the maps of the layers of a model."""

    def record(module, inputs, output) -> None:
        sizes.setdefault(module, []).append(tuple(output.shape[-2:]))

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(record)
        elif isinstance(module, nn.Linear):
            module.register_forward_hook(token_recorder(sizes, grids))


@dataclass(frozen=True)
class FixedMaps:
    """What two small images of different widths show about the maps of a model.

    Attributes:
        sizes: The sizes of the maps of those convolutions whose maps do not depend on the image.
        tokens: The inputs of each linear layer for both images.
        announced: The linear layers inside modules that know their maps.
        reached: The layers that were looked at: those that ran on both images.
        failure: A sentence that says why the model did not run to its end, or ''.
        uncopied: A sentence that says why the model itself ran and no copy of it, or ''.
    """

    sizes: Sizes
    tokens: dict[Any, tuple[list[TokenInput], list[TokenInput]]]
    announced: Collection[nn.Module]
    reached: Collection[nn.Module]
    failure: str
    uncopied: str


def fixed_maps(model: nn.Module) -> FixedMaps:
    """Find out which layers have feature maps of the same size whatever the size of the image.

    Global and adaptive pooling lead to such maps. A copy of the model runs on two small images with
    positive random values, always the same ones. The model itself runs only if it cannot be copied.
    Then its attributes and buffers are restored, and its hooks are not called. A model that does
    not return from such an image does not return here.

    Args:
        model: Any module that takes one batch of images.

    Returns:
        The maps, and why those of others are not known.
    """
    copied, uncopied = model, ''
    try:
        copied = twin(model)
    except Exception as error:  # a model may hold anything
        uncopied = (
            f'{type(model).__name__} cannot be copied ({type(error).__name__}: {error}), so that '
            'it ran itself to show the sizes of its maps. Its attributes and buffers were '
            'restored.'
        )
    originals: dict[Any, Any] = dict(zip(copied.modules(), model.modules(), strict=True))
    with hooks_off(copied):
        runs = [_reached(copied, image) for image in _IMAGES]
    with announced_grids(copied) as grids:
        announced = {originals[layer] for layer in grids}
    (first, _), (second, _) = runs
    both = {layer: (first[layer], second[layer]) for layer in first if layer in second}
    linear = {layer: calls for layer, calls in both.items() if isinstance(layer, nn.Linear)}
    return FixedMaps(
        {
            originals[conv]: sizes
            for conv, (sizes, others) in both.items()
            if conv not in linear and sizes == others
        },
        {originals[layer]: calls for layer, calls in linear.items()},
        announced,
        {originals[layer] for layer in both},
        next((failure for _, failure in runs if failure), ''),
        uncopied,
    )


def _reached(model: nn.Module, size: tuple[int, int]) -> tuple[Sizes, str]:
    """Return the sizes of maps up to the end of a run or to its failure, and what failed."""
    sizes: Sizes = {}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            image = example_input(model, size)
            # A loop that ends when values are large enough would never end on zeros.
            image.copy_(torch.rand(image.shape, generator=torch.Generator().manual_seed(0)))
            with announced_grids(model) as grids:
                run_on_image(
                    'compress_model',
                    model,
                    image,
                    partial(_record, model, sizes, grids),
                    purpose='show the sizes of all maps',
                    remedy='',
                )
        except ValueError as error:
            return sizes, str(error).rstrip()
    return sizes, ''
