"""PACT: the clip of activations is learned only from the values that it clips."""

from __future__ import annotations

from torch import Tensor

from mmwcc.functional import QuantizationSpec
from mmwcc.registry import MODELS

from .base import UniformQuantizer

__all__ = ['PACTActQuantizer']


@MODELS.register_module()
class PACTActQuantizer(UniformQuantizer):
    """Quantize activations or wavelet coefficients with PACT.

    The clip gets the gradient of the values at or above it, each counted once. The rounding errors
    of the values below contribute nothing. Values inside the clip get their gradients straight
    through.

    The paper clips the outputs of ReLU, between 0 and the clip. Where values are signed, as wavelet
    coefficients always are, both sides are clipped at the same distance from zero. A value at or
    below the negative clip then counts with the opposite sign.

    Args:
        bits: Width in 2 ... 16, or 32 for no quantization. Defaults to 8.
        signed: Whether negative values have levels. With None, calibration decides. Defaults to
            None.
        calibration: 'mse', 'percentile', 'lsq', or None to start at ``initial_clip``, as the paper
            does. Defaults to 'mse'.
        percentile: For ``calibration='percentile'``, in percent. Defaults to 99.9.
        initial_clip: Value of the clip without calibration. Defaults to 10.0.

    Raises:
        TypeError: If bits is not an integer.
        ValueError: If an argument is out of range.

    Note:
        The paper adds the square of the clip to the loss, which is weight decay. Here the optimizer
        does that: ``clip_alpha`` is decayed like any other parameter, and
        ``paramwise_cfg=dict(custom_keys={'clip_alpha': dict(decay_mult=2.0)})`` sets how much.

    Example:
        >>> quantizer = PACTActQuantizer(2, signed=False, calibration=None, initial_clip=3.0)
        >>> quantizer(torch.tensor([-1.0, 0.6, 2.0, 3.0, 5.0])).sum().backward()
        >>> quantizer.clip_alpha.grad.item()  # of the last two
        2.0

    Reference:
        Choi et al., PACT: Parameterized Clipping Activation for Quantized Neural Networks, 2018,
        section 3, equations (1) to (3).
    """

    def __init__(
        self,
        bits: int = 8,
        *,
        signed: bool | None = None,
        calibration: str | None = 'mse',
        percentile: float = 99.9,
        initial_clip: float = 10.0,
    ) -> None:
        super().__init__(
            bits,
            signed=signed,
            calibration=calibration,
            percentile=percentile,
            initial_clip=initial_clip,
        )

    def spec(self, x: Tensor) -> QuantizationSpec:
        return QuantizationSpec(self.bits, rounding_gradient=False)
