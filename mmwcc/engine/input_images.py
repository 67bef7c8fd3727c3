"""The images that a network is given, as RGB pixels for figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mmwcc.utils import reverses_channels

__all__ = ['loads_rgb', 'observe_images', 'rgb_pixels']


def observe_images(model: nn.Module, observer: Callable[[Any], None]) -> RemovableHandle:
    """Call ``observer(inputs)`` with the preprocessed images of every forward pass of a model.

    Args:
        model: A model of OpenMMLab, without wrappers.
        observer: Called before each forward pass.

    Returns:
        The handle whose ``remove()`` ends the observation.
    """

    def observe(module: nn.Module, args: tuple, kwargs: dict) -> None:
        observer(kwargs['inputs'] if 'inputs' in kwargs else args[0])

    return model.register_forward_pre_hook(observe, with_kwargs=True)


def loads_rgb(dataset: Any) -> bool:
    """Tell whether the images of a dataset are loaded as RGB.

    A dataset or a transform that does so has the attribute ``channel_order = 'rgb'``. All others
    are taken to load BGR, as mmcv does.

    Args:
        dataset: A dataset, possibly within wrappers that concatenate or repeat datasets.
    """
    while hasattr(dataset, 'dataset') or hasattr(dataset, 'datasets'):
        dataset = dataset.dataset if hasattr(dataset, 'dataset') else dataset.datasets[0]
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    return any(getattr(part, 'channel_order', 'bgr') == 'rgb' for part in (dataset, *transforms))


def rgb_pixels(images: Tensor, data_preprocessor: nn.Module | None, dataset: Any) -> Tensor:
    """Put the channels of images of a network into the order red, green, blue.

    Args:
        images: Images (..., 3, H, W) in the order of the network's inputs. With any other number of
            channels, they are returned as they are.
        data_preprocessor: The data preprocessor of the network, which may reverse the channels.
        dataset: The dataset that loaded the images.
    """
    # A preprocessor of semi-supervised learning contains the one that sees the images.
    preprocessor = getattr(data_preprocessor, 'data_preprocessor', data_preprocessor)
    if images.shape[-3] != 3 or reverses_channels(preprocessor) != loads_rgb(dataset):
        return images
    return images.flip(-3)
