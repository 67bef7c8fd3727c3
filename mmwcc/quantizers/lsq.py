"""Learned step size quantization (LSQ) on the same base: the strong baseline."""

from __future__ import annotations

from torch import Tensor

from mmwcc.functional import QuantizationSpec
from mmwcc.registry import MODELS

from .base import UniformQuantizer
from .roles import ActQuantizer, WeightQuantizer

__all__ = ['LSQActQuantizer', 'LSQWeightQuantizer']


class _LSQQuantizer(UniformQuantizer):
    """Learn the step ``s = clip_alpha / n`` with LSQ's gradient and gradient scale.

    The scale is ``g = 1 / sqrt(count * n)``. The parameter is the clip, so that it keeps its
    meaning when the bit width changes. Its gradient is ``g * n * dL/ds``. A gradient step on the
    clip is then ``n`` times LSQ's own step on ``s``, which is the same update.
    """

    symmetric = False

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
            symmetric=self.symmetric,
            alpha_scale=gradient_scale * levels**2,
            axes=self.scales.axes,
        )


@MODELS.register_module()
class LSQActQuantizer(_LSQQuantizer, ActQuantizer):
    """Quantize activations or wavelet coefficients with LSQ.

    The arguments are those of :class:`ActQuantizer`. The step ``2 E|x| / sqrt(n)`` with which the
    paper starts is ``calibration='lsq'``.

    Reference:
        Esser et al., Learned Step Size Quantization, ICLR 2020, sections 2.1 to 2.3.
    """

    def _count(self, x: Tensor) -> int:
        return max(1, x[0].numel() if len(x) else 1)  # features of one image, whatever the batch


@MODELS.register_module()
class LSQWeightQuantizer(_LSQQuantizer, WeightQuantizer):
    """Quantize a weight tensor with LSQ.

    The arguments are those of :class:`WeightQuantizer`. With ``per_channel``, the gradient of a
    clip is scaled by the number of its values.

    Reference:
        Esser et al., Learned Step Size Quantization, ICLR 2020, sections 2.1 to 2.3.
    """
