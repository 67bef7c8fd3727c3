"""Turn the images of a data loader into the input of a classifier."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import ImgDataPreprocessor

from mmwcc.registry import MODELS

__all__ = ['ClsDataPreprocessor']


@MODELS.register_module()
class ClsDataPreprocessor(ImgDataPreprocessor):
    """Stack images of one size into a normalized batch, with mmpretrain's argument names.

    Args:
        mean: Mean of each channel in units of pixels, in the channel order of the output. Defaults
            to None.
        std: Standard deviation of each channel in units of pixels. Defaults to None, no
            normalization.
        to_rgb: Whether to reverse the channels, as needed for images read by OpenCV. Defaults to
            False.
        batch_augments: What mmpretrain's classifiers hand over from their ``train_cfg``, which must
            be nothing. Defaults to None.

    Shape:
        A list of (3, H, W) images of one size, or (B, 3, H, W), to (B, 3, H, W) float32.

    Raises:
        ValueError: If only one of mean and std is given.
        ValueError: If there are batch_augments.
        ValueError: In use, if the images of a batch differ in size.

    Example:
        >>> preprocess = ClsDataPreprocessor(mean=[127.5] * 3, std=[127.5] * 3)
        >>> white = torch.full((3, 2, 2), 255, dtype=torch.uint8)
        >>> preprocess(dict(inputs=[white]))['inputs'].unique()
        tensor([1.])
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        to_rgb: bool = False,
        batch_augments: dict | None = None,
    ) -> None:
        if (mean is None) != (std is None):
            raise ValueError(
                f'ClsDataPreprocessor: mean and std must be given together, got mean={mean} and '
                f'std={std}. Use mean=[0, 0, 0] or std=[1, 1, 1] to leave one of them without '
                'effect.'
            )
        if batch_augments is not None:
            raise ValueError(
                f'ClsDataPreprocessor: batch_augments must be None, got {batch_augments}. Use '
                'mmpretrain.ClsDataPreprocessor to mix the images of a batch.'
            )
        super().__init__(mean=mean, std=std, bgr_to_rgb=to_rgb)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Return ``data`` with ``inputs`` stacked and normalized."""
        inputs = data['inputs']
        if isinstance(inputs, Sequence):
            sizes = {tuple(image.shape[-2:]) for image in inputs}
            if len(sizes) > 1:
                raise ValueError(
                    f'{type(self).__name__}: the images of a batch must have one size, got '
                    f'{sorted(sizes)}. End the pipeline with a crop or a resize, or use '
                    'batch_size=1.'
                )
        return super().forward(data, training)
