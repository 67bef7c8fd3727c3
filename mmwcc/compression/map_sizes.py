"""The sizes of the feature maps that the convolutions of a model compute."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from mmwcc.model_tree import example_input, hooks_off, run_on_image, run_on_zeros, twin

__all__ = ['FixedMaps', 'Sizes', 'fixed_maps', 'map_sizes']

Sizes = dict[nn.Conv2d, list[tuple[int, int]]]
"""Height and width of each layer's feature maps, one entry per call."""

# Two images of different widths. A map of the second is wider than one of the first unless its size
# does not depend on the image, down to maps of 1/128 of the width.
_IMAGES = (64, 64), (64, 256)


def map_sizes(model: nn.Module, input_shape: tuple[int, ...]) -> Sizes:
    """Run a model once on zeros and record the sizes of the feature maps its convolutions compute.

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
    run_on_zeros(
        'only_if_faster',
        model,
        input_shape,
        partial(_record, model, sizes),
        purpose='show the sizes of its maps',
        remedy='Give the shape of its input, or drop only_if_faster and keep layers dense by '
        'rules.',
    )
    return sizes


def _record(model: nn.Module, sizes: Sizes) -> None:
    """Register hooks that record the sizes of what the convolutions of a model return."""

    def record(module, inputs, output) -> None:
        sizes.setdefault(module, []).append(tuple(output.shape[-2:]))

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(record)


@dataclass(frozen=True)
class FixedMaps:
    """The convolutions whose feature maps have the same size whatever the size of the image.

    Attributes:
        sizes: The sizes of these maps.
        reached: The convolutions that were looked at: those that ran on both images.
        failure: A sentence that says why the model did not run to its end, or ''.
        uncopied: A sentence that says why the model itself ran and no copy of it, or ''.
    """

    sizes: Sizes
    reached: Collection[nn.Conv2d]
    failure: str
    uncopied: str


def fixed_maps(model: nn.Module) -> FixedMaps:
    """Find the convolutions whose feature maps have the same size whatever the size of the image.

    Global and adaptive pooling lead to such maps. A copy of the model runs on two small images with
    positive random values, always the same ones. The model itself runs only if it cannot be copied.
    Then its attributes and buffers are restored, and its hooks are not called. A model that does
    not return from such an image does not return here.

    Args:
        model: Any module that takes one batch of images.

    Returns:
        The sizes of these maps, and why others are not known.
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
    (first, _), (second, _) = runs
    return FixedMaps(
        {originals[conv]: sizes for conv, sizes in first.items() if second.get(conv) == sizes},
        {originals[conv] for conv in first if conv in second},
        next((failure for _, failure in runs if failure), ''),
        uncopied,
    )


def _reached(model: nn.Module, size: tuple[int, int]) -> tuple[Sizes, str]:
    """Return the sizes of maps up to the end of a run or to its failure, and what failed."""
    sizes: Sizes = {}
    image = example_input(model, size)
    # A loop that ends when values are large enough would never end on zeros.
    image.copy_(torch.rand(image.shape, generator=torch.Generator().manual_seed(0)))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            run_on_image(
                'compress_model',
                model,
                image,
                partial(_record, model, sizes),
                purpose='show the sizes of all maps',
                remedy='',
            )
        except ValueError as error:
            return sizes, str(error).rstrip()
    return sizes, ''
