"""Quantized linear layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mmwcc.functional import one_call
from mmwcc.registry import MODELS

from .swap import CompressedLayerMixin
from .token_rows import TokenRows

__all__ = ['CompressedLinearMixin', 'QuantLinear']


if TYPE_CHECKING:  # every class that uses this mixin is a linear layer
    _Linear = nn.Linear
else:
    _Linear = object


class CompressedLinearMixin(CompressedLayerMixin, TokenRows, _Linear):
    """:class:`CompressedLayerMixin` for subclasses of ``nn.Linear``."""

    @staticmethod
    def _geometry_of(linear: nn.Linear) -> dict[str, Any]:
        return dict(
            in_features=linear.in_features,
            out_features=linear.out_features,
            bias=linear.bias is not None,
        )

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, weight_quant=None, act_quant=None, **compression):
        """Build the layer that replaces a linear layer, see :meth:`from_dense`."""
        return cls.from_dense(linear, weight_quant=weight_quant, act_quant=act_quant, **compression)

    @property
    def kernel(self) -> Tensor:
        """The weight as the kernel of a 1x1 convolution, shape (out, in, 1, 1)."""
        return self.weight[:, :, None, None]


@MODELS.register_module()
class QuantLinear(CompressedLinearMixin, nn.Linear):
    """A linear layer that quantizes its weight and its input.

    Parameters keep their names and shapes, so a checkpoint of ``nn.Linear`` loads with only the
    quantizers' keys missing. For backward, the layer saves the unquantized input once and quantizes
    it again. It multiplies where that is fastest, on the CPU as a 1x1 convolution. Without
    quantizers, it computes the same as ``nn.Linear``.

    Args:
        in_features: As in :class:`torch.nn.Linear`, like all arguments up to ``dtype``.
        weight_quant: Quantizer of the weight, or its config. Defaults to None, which does not
            quantize.
        act_quant: Quantizer of the input, or its config. Defaults to None, which does not quantize.

    Shape:
        As :class:`torch.nn.Linear`.

    Raises:
        TypeError: If a quantizer argument is not None, a quantizer or a dict with a type.
        ValueError: If an argument of a quantizer is outside its range, or in use, if the last
            dimension of the input is not in_features.

    Example:
        >>> act_quant = dict(type='mmwcc.LearnedClipActQuantizer', bits=8)
        >>> QuantLinear(8, 16, act_quant=act_quant)(torch.rand(1, 5, 8)).shape
        torch.Size([1, 5, 16])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device=None,
        dtype=None,
        *,
        weight_quant: dict | None = None,
        act_quant: dict | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self._build_quantizers(weight_quant, act_quant)

    @one_call
    def forward(self, input: Tensor) -> Tensor:
        self._check_input(input)
        y = self._product(self.rows(input), self.kernel, self.bias)
        return y.reshape(*input.shape[:-1], self.out_features)
