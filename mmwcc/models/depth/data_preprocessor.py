"""Turn the frames of a data loader into the input of a depth network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor

from mmwcc.registry import MODELS

__all__ = ['DepthDataPreprocessor']


@MODELS.register_module()
class DepthDataPreprocessor(BaseDataPreprocessor):
    """Stack images, or sequences of frames, into a normalized batch.

    Args:
        mean: Mean of each channel in units of pixels, in the channel order of the output. Defaults
            to Monodepth2's, 0.45 of 255.
        std: Standard deviation of each channel in units of pixels. Defaults to Monodepth2's, 0.225
            of 255.
        bgr_to_rgb: Whether to reverse the channels. Defaults to True, as needed for images read by
            OpenCV.

    Shape:
        A list of (3, H, W) or of (N, 3, H, W) to (B, [N,] 3, H, W) float32.

    Raises:
        ValueError: In use, if the images of a batch differ in shape.

    Example:
        >>> preprocess = DepthDataPreprocessor(mean=[127.5] * 3, std=[127.5] * 3)
        >>> white = torch.full((3, 2, 2), 255, dtype=torch.uint8)
        >>> preprocess(dict(inputs=[white]))['inputs'].unique()
        tensor([1.])
    """

    def __init__(
        self,
        mean: Sequence[float] = (114.75,) * 3,
        std: Sequence[float] = (57.375,) * 3,
        bgr_to_rgb: bool = True,
    ) -> None:
        super().__init__()
        self.bgr_to_rgb = bgr_to_rgb
        # Plain numbers, because buffers outside the checkpoint are lost on the meta device.
        self._mean, self._std = tuple(mean), tuple(std)

    @property
    def mean(self) -> torch.Tensor:
        """The value subtracted from each channel, shape (C, 1, 1)."""
        return torch.tensor(self._mean, dtype=torch.float32, device=self.device).reshape(-1, 1, 1)

    @property
    def std(self) -> torch.Tensor:
        """The value by which each channel is divided, shape (C, 1, 1)."""
        return torch.tensor(self._std, dtype=torch.float32, device=self.device).reshape(-1, 1, 1)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Return ``data`` on the model's device, with ``inputs`` stacked and normalized."""
        data = self.cast_data(data)
        shapes = {tuple(image.shape) for image in data['inputs']}
        if len(shapes) > 1:
            raise ValueError(
                'DepthDataPreprocessor: the images of a batch must have one shape, got '
                f'{sorted(shapes)}. Put mmwcc.ResizeDepthFrames into the pipeline, or use '
                'batch_size=1.'
            )
        inputs = torch.stack(list(data['inputs'])).float()
        data['inputs'] = ((inputs.flip(-3) if self.bgr_to_rgb else inputs) - self.mean) / self.std
        return data
