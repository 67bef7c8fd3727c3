"""What quantizers of activations and quantizers of weights have in common: their arguments."""

from __future__ import annotations

from .base import UniformQuantizer
from .granularity import CHANNEL, LAYER

__all__ = ['ROLES', 'ActQuantizer', 'WeightQuantizer']


class ActQuantizer(UniformQuantizer):
    """Base of the quantizers of activations and wavelet coefficients, most of which have one clip.

    Args:
        bits: Width in 2 ... 16, or 32 for no quantization. Defaults to 8.
        signed: Whether negative values have levels. With None, calibration decides. Defaults to
            None.
        calibration: 'mse', 'percentile', 'lsq' or None. Defaults to 'mse'.
        percentile: For ``calibration='percentile'``, in percent. Defaults to 99.9.
        initial_clip: Value of the clip without calibration. Defaults to None, which is the
            ``default_clip`` of the class.
        symmetric: Whether a signed grid leaves out its lowest level, -128 at 8 bits. Runtimes fuse
            grids that have it, see docs/deployment.md. Defaults to None, which is the
            ``symmetric`` of the class.

    Attributes:
        default_clip: Where the clip starts if nothing else is said.
        symmetric: Whether a signed grid leaves out its lowest level.
        kind_of_scales: Which values share a clip.

    Raises:
        TypeError: If bits is not an integer.
        ValueError: If an argument is out of range.
    """

    default_clip = 8.0
    symmetric = True
    kind_of_scales = LAYER

    def __init__(
        self,
        bits: int = 8,
        *,
        signed: bool | None = None,
        calibration: str | None = 'mse',
        percentile: float = 99.9,
        initial_clip: float | None = None,
        symmetric: bool | None = None,
    ) -> None:
        super().__init__(
            bits,
            signed=signed,
            calibration=calibration,
            percentile=percentile,
            initial_clip=self.default_clip if initial_clip is None else initial_clip,
            scales=self.kind_of_scales,
        )
        self.symmetric = type(self).symmetric if symmetric is None else symmetric

    def extra_repr(self) -> str:
        text = super().extra_repr()
        same = self.symmetric == type(self).symmetric
        return text if same else f'{text}, symmetric={self.symmetric}'


class WeightQuantizer(UniformQuantizer):
    """Base of the quantizers of weights, which are signed.

    Args:
        bits: Width in 2 ... 16, or 32 for no quantization. Defaults to 8.
        calibration: 'mse', 'percentile', 'lsq' or None. Defaults to 'mse'.
        percentile: For ``calibration='percentile'``, in percent. Defaults to 99.9.
        initial_clip: Value of the clip without calibration, in the units of what is quantized.
            Defaults to None, which is the ``default_clip`` of the class.
        per_channel: Whether each output channel has a clip of its own. Defaults to False.

    Attributes:
        default_clip: Where the clip starts if nothing else is said.

    Raises:
        TypeError: If bits is not an integer.
        ValueError: If an argument is out of range.
    """

    default_clip = 1.0

    def __init__(
        self,
        bits: int = 8,
        *,
        calibration: str | None = 'mse',
        percentile: float = 99.9,
        initial_clip: float | None = None,
        per_channel: bool = False,
    ) -> None:
        super().__init__(
            bits,
            signed=True,
            calibration=calibration,
            percentile=percentile,
            initial_clip=self.default_clip if initial_clip is None else initial_clip,
            scales=CHANNEL if per_channel else LAYER,
        )


ROLES = dict(weight_quant=WeightQuantizer, act_quant=ActQuantizer)
"""The base class for each role. Classes derived from neither may be used in both roles."""
