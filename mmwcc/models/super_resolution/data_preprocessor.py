"""Convert pixels into the units of a super-resolution network, and back."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmwcc.models.classifiers import ClsDataPreprocessor
from mmwcc.registry import MODELS

__all__ = ['SRDataPreprocessor']


@MODELS.register_module()
class SRDataPreprocessor(ClsDataPreprocessor):
    """Shift images by the dataset mean, scale them to [0, 1], and undo this for the output.

    Args:
        mean: Mean of each channel in units of pixels. Defaults to that of DIV2K, in RGB order.
        std: Divisor of each channel in units of pixels. Defaults to 255 for all.

    Shape:
        A list of (3, H, W) images of one size, or (B, 3, H, W), to (B, 3, H, W) float32.

    Raises:
        ValueError: In use, if the images of a batch differ in size.

    Example:
        >>> preprocess = SRDataPreprocessor(mean=[51., 51., 51.])
        >>> x = preprocess(dict(inputs=[torch.full((3, 2, 2), 102, dtype=torch.uint8)]))['inputs']
        >>> x.unique(), preprocess.to_pixels(x).unique()
        (tensor([0.2000]), tensor([102.]))
    """

    def __init__(
        self,
        mean: Sequence[float] = (114.444, 111.4605, 103.02),
        std: Sequence[float] = (255.0, 255.0, 255.0),
    ) -> None:
        super().__init__(mean, std)

    def from_pixels(self, images: Tensor) -> Tensor:
        """Shift and scale pixels (B, 3, H, W)."""
        return (images.to(self.mean) - self.mean) / self.std

    def to_pixels(self, images: Tensor) -> Tensor:
        """Convert back to pixels (B, 3, H, W), without rounding or clipping."""
        return images * self.std + self.mean
