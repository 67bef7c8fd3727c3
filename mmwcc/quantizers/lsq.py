"""Learned step size quantization (LSQ) on the same base: the strong baseline."""

from __future__ import annotations

from torch import Tensor

from mmwcc.functional import QuantizationSpec
from mmwcc.registry import MODELS

from .base import UniformQuantizer
from .granularity import CHANNEL, LAYER

__all__ = ['LSQActQuantizer', 'LSQWeightQuantizer']


class _LSQQuantizer(UniformQuantizer):
    """Learn the step ``s = clip_alpha / n`` with LSQ's gradient and gradient scale.

    The scale is ``g = 1 / sqrt(count * n)``. The parameter is the clip, so that it keeps its
    meaning when the bit width changes. Its gradient is ``g * n * dL/ds``. A gradient step on the
    clip is then ``n`` times LSQ's own step on ``s``, which is the same update.
    """

    def _count(self, x: Tensor) -> int:
        """Return how many values share a clip."""
        return max(1, x.numel() // self.clip_alpha.numel())

    def spec(self, x: Tensor) -> QuantizationSpec:
        if not self.is_on:
            return QuantizationSpec(self.bits)
        levels = self.positive_levels
        gradient_scale = (self._count(x) * levels) ** -0.5
        # The operator returns the gradient of the clip, dL/ds / n. Hence the factor n twice.
        return QuantizationSpec(
            self.bits,
            symmetric=False,
            alpha_scale=gradient_scale * levels**2,
            axes=self.scales.axes,
        )


@MODELS.register_module()
class LSQActQuantizer(_LSQQuantizer):
    """Quantize activations or wavelet coefficients with LSQ.

    Args:
        bits: Width in 2 ... 16, or 32 for no quantization. Defaults to 8.
        signed: Whether negative values have levels. With None, calibration decides. Defaults to
            None.
        calibration: 'mse', 'percentile', 'lsq' (the step ``2 E|x| / sqrt(n)`` of the paper) or
            None. Defaults to 'mse'.
        percentile: For ``calibration='percentile'``, in percent. Defaults to 99.9.
        initial_clip: Value of the clip without calibration. Defaults to 8.0.

    Raises:
        TypeError: If bits is not an integer.
        ValueError: If an argument is out of range.

    Reference:
        Esser et al., Learned Step Size Quantization, ICLR 2020, sections 2.1 to 2.3.
    """

    def __init__(
        self,
        bits: int = 8,
        *,
        signed: bool | None = None,
        calibration: str | None = 'mse',
        percentile: float = 99.9,
        initial_clip: float = 8.0,
    ) -> None:
        super().__init__(
            bits,
            signed=signed,
            calibration=calibration,
            percentile=percentile,
            initial_clip=initial_clip,
        )

    def _count(self, x: Tensor) -> int:
        return max(1, x[0].numel() if len(x) else 1)  # features of one image, whatever the batch


@MODELS.register_module()
class LSQWeightQuantizer(_LSQQuantizer):
    """Quantize a weight tensor with LSQ.

    Args:
        bits: Width in 2 ... 16, or 32 for no quantization. Defaults to 8.
        calibration: 'mse', 'percentile', 'lsq' or None. Defaults to 'mse'.
        percentile: For ``calibration='percentile'``, in percent. Defaults to 99.9.
        initial_clip: Value of the clip without calibration. Defaults to 1.0.
        per_channel: Whether each output channel has a clip of its own, whose gradient is scaled by
            the number of its values. Defaults to False.

    Raises:
        TypeError: If bits is not an integer.
        ValueError: If an argument is out of range.

    Reference:
        Esser et al., Learned Step Size Quantization, ICLR 2020, sections 2.1 to 2.3.
    """

    def __init__(
        self,
        bits: int = 8,
        *,
        calibration: str | None = 'mse',
        percentile: float = 99.9,
        initial_clip: float = 1.0,
        per_channel: bool = False,
    ) -> None:
        super().__init__(
            bits,
            signed=True,
            calibration=calibration,
            percentile=percentile,
            initial_clip=initial_clip,
            scales=CHANNEL if per_channel else LAYER,
        )
