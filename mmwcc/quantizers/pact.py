"""PACT: the clip of activations is learned only from the values that it clips."""

from __future__ import annotations

from torch import Tensor

from mmwcc.functional import QuantizationSpec
from mmwcc.registry import MODELS

from .roles import ActQuantizer

__all__ = ['PACTActQuantizer']


@MODELS.register_module()
class PACTActQuantizer(ActQuantizer):
    """Quantize activations or wavelet coefficients with PACT.

    The clip gets the gradient of the values at or above it, each counted once. The rounding errors
    of the values below contribute nothing. Values inside the clip get their gradients straight
    through.

    The paper clips the outputs of ReLU, between 0 and the clip. Where values are signed, as wavelet
    coefficients always are, both sides are clipped at the same distance from zero. A value at or
    below the negative clip then counts with the opposite sign.

    The arguments are those of :class:`ActQuantizer`. With ``calibration=None`` the clip starts at
    ``initial_clip``, as in the paper, which is 10 by default.

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

    default_clip = 10.0

    def spec(self, x: Tensor) -> QuantizationSpec:
        return QuantizationSpec(self.bits, self.symmetric, rounding_gradient=False)
