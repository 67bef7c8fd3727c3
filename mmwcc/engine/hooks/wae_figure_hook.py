"""Show what a wavelet-like auto-encoder has learned."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from torch import Tensor, nn

from mmwcc.engine.input_images import observe_images, rgb_pixels
from mmwcc.model_tree import unwrapped
from mmwcc.registry import HOOKS
from mmwcc.utils import undo_normalization

__all__ = ['WAEFigureHook', 'decomposition_figure']

_CAPTION = 22
_FONT_SCALE = 0.42


@HOOKS.register_module()
class WAEFigureHook(Hook):
    """Draw I, I_L, I_H and I' of some images side by side, during validation and in every test.

    The auto-encoder is the first one in the model: mmwcc.WAE itself, or the one in a WAEClassifier
    or a WAEBackbone. The figure goes to the visualizer as ``wae``, and from there to all its
    backends. I_L is stretched to the full range. I_H is drawn around grey and amplified. The
    captions give the range of I_L, the amplification of I_H and the PSNR of I'.

    Args:
        interval: Number of validations between two figures. Defaults to 1.
        num_images: Number of images per figure, from the first batch. Defaults to 4.

    Raises:
        ValueError: If interval or num_images is less than 1.
        RuntimeError: In use, if the model has no auto-encoder.

    Note:
        With test-time augmentation, the first version of the images is drawn. Images are taken to
        be loaded as BGR unless their dataset or a transform has ``channel_order = 'rgb'``.
    """

    priority = 'NORMAL'

    def __init__(self, interval: int = 1, num_images: int = 4) -> None:
        if interval < 1 or num_images < 1:
            raise ValueError(
                f'WAEFigureHook: interval and num_images must be at least 1, got {interval} and '
                f'{num_images}. Leave the hook out to draw nothing.'
            )
        self.interval, self.num_images = interval, num_images
        self._validations = 0
        self._observing = ExitStack()
        self._inputs: Tensor | None = None

    def before_val_epoch(self, runner) -> None:
        """Count validations."""
        self._validations += 1

    def before_val_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Start observing, in the first batch."""
        if batch_idx == 0 and (self._validations - 1) % self.interval == 0:
            self._observe(runner)

    def after_val_iter(
        self, runner, batch_idx: int, data_batch: dict | None = None, outputs=None
    ) -> None:
        """Draw the observed images."""
        self._draw(runner, runner.val_dataloader)

    def before_test_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Start observing, in the first batch."""
        if batch_idx == 0:
            self._observe(runner)

    def after_test_iter(
        self, runner, batch_idx: int, data_batch: dict | None = None, outputs=None
    ) -> None:
        """Draw the observed images."""
        self._draw(runner, runner.test_dataloader)

    @master_only
    def _observe(self, runner) -> None:
        def take(inputs: Tensor) -> None:
            if self._inputs is None:
                self._inputs = inputs[: self.num_images]

        self._observing.callback(observe_images(unwrapped(runner.model), take).remove)

    @master_only
    def _draw(self, runner, dataloader) -> None:
        self._observing.close()
        if self._inputs is None:
            return
        model: Any = unwrapped(runner.model)
        wae = next(
            (module for module in model.modules() if hasattr(module, 'transform_losses')), None
        )
        if wae is None:
            raise RuntimeError(
                f'WAEFigureHook: the model must have a mmwcc.WAE, got none in '
                f'{type(model).__name__}. Leave the hook out for models without an auto-encoder.'
            )
        figure = decomposition_figure(
            wae, self._inputs, model.data_preprocessor, dataloader.dataset
        )
        self._inputs = None
        runner.visualizer.add_image('wae', figure, runner.iter)


@torch.no_grad()
def decomposition_figure(
    wae: Any, inputs: Tensor, data_preprocessor: nn.Module | None = None, dataset: Any = None
) -> np.ndarray:
    """Return I, I_L, I_H and I' side by side, one row per image.

    Args:
        wae: A mmwcc.WAE, or a module with its ``decode``.
        inputs: Preprocessed images (B, 3, H, W).
        data_preprocessor: The module that preprocessed the images, to undo its normalization.
            Defaults to None: pixels from 0 to 255.
        dataset: The dataset that loaded the images, see
            :func:`mmwcc.engine.input_images.loads_rgb`. Defaults to None: BGR.

    Returns:
        RGB pixels, (rows, columns, 3) uint8.
    """
    low, high = wae(inputs)
    decoded = wae.decode(low, high, inputs.shape[2:])
    images, decoded = (undo_normalization(x, data_preprocessor) for x in (inputs, decoded))
    decoded = decoded.clamp(0, 255)
    error = (images - decoded).square().flatten(1).mean(1).clamp_min(1e-10)
    images, low, high, decoded = (
        rgb_pixels(part, data_preprocessor, dataset) for part in (images, low, high, decoded)
    )
    rows = []
    for i in range(len(inputs)):
        detail = high[i] - high[i].mean((1, 2), keepdim=True)
        gain = 1 / max(float(detail.abs().amax()), 1e-6)
        bottom, top = float(low[i].amin()), float(low[i].amax())
        stretched = 255 * (low[i] - bottom) / max(top - bottom, 1e-6)
        psnr = float(10 * torch.log10(255**2 / error[i]))
        parts = {
            'I': images[i],
            f'I_L {bottom:.1f} to {top:.1f}': stretched,
            f'I_H x{gain:.3g}': 127.5 + 127.5 * gain * detail,
            f"I' {psnr:.1f} dB": decoded[i],
        }
        rows.append(
            np.concatenate(
                [_panel(part, inputs.shape[2:], text) for text, part in parts.items()], axis=1
            )
        )
    return np.concatenate(rows)


def _panel(image: Tensor, size: Sequence[int], text: str) -> np.ndarray:
    """Scale one image to a common size, at least 160 pixels wide, and put its caption above it."""
    import cv2

    scale = max(1, -(-160 // size[1]))
    height, width = scale * size[0], scale * size[1]
    pixels = image.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    panel = np.full((height + _CAPTION + 4, width + 4, 3), 255, np.uint8)
    panel[_CAPTION:-4, 2:-2] = cv2.resize(
        np.ascontiguousarray(pixels), (width, height), interpolation=cv2.INTER_NEAREST
    )
    font, black = cv2.FONT_HERSHEY_SIMPLEX, (0, 0, 0)
    (length, _), _ = cv2.getTextSize(text, font, _FONT_SCALE, 1)
    # Large numbers get a smaller font rather than being cut off.
    font_scale = _FONT_SCALE * min(1.0, (width - 8) / length)
    cv2.putText(panel, text, (4, 15), font, font_scale, black, 1, cv2.LINE_AA)
    return panel
