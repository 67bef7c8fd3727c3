"""The sizes of the feature maps that the convolutions of a model compute."""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import partial
from typing import Any

from torch import nn

from mmwcc.model_tree import run_on_zeros, twin

__all__ = ['Sizes', 'fixed_maps', 'map_sizes']

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


def fixed_maps(model: nn.Module) -> Sizes:
    """Find the convolutions whose feature maps have the same size whatever the size of the image.

    Global and adaptive pooling lead to such maps. A copy of the model runs on two small images of
    zeros, and the model itself does not run. What cannot be found out is left out: layers that a
    run does not reach, because the model fails on such images or cannot be copied.

    Args:
        model: Any module that takes one batch of images.

    Returns:
        The sizes of these maps.
    """
    try:
        copied = twin(model)
    except Exception:  # a model may hold anything
        return {}
    originals: dict[Any, Any] = dict(zip(copied.modules(), model.modules(), strict=True))
    first, second = (_reached(copied, image) for image in _IMAGES)
    return {originals[conv]: sizes for conv, sizes in first.items() if second.get(conv) == sizes}


def _reached(model: nn.Module, image: tuple[int, int]) -> Sizes:
    """Return the sizes of maps up to the end of a run on zeros, or up to its failure."""
    sizes: Sizes = {}
    with warnings.catch_warnings(), suppress(ValueError):
        warnings.simplefilter('ignore')
        run_on_zeros(
            'compress_model',
            model,
            image,
            partial(_record, model, sizes),
            purpose='show the sizes of its maps',
            remedy='',
        )
    return sizes
