"""Integer forms of trained quantized linear layers: int8 tokens times int8 weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmwcc.functional import one_call
from mmwcc.layers import QuantLinear, TokenRows, TokenTransform, WaveletCompressedLinear
from mmwcc.model_tree import width_obstacle
from mmwcc.registry import MODELS

from .integer_layer import PointwiseIntegerLayer
from .integer_wavelets import IntegerWavelets
from .quantized_map import dequantized

__all__ = ['IntegerLinear', 'IntegerLinearLayer', 'IntegerWaveletCompressedLinear']


class IntegerLinearLayer(PointwiseIntegerLayer, TokenRows):
    """Base class of integer linear layers."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool,
        weight_bits: int,
        act_bits: float,
        widths: Sequence[int] | None,
    ) -> None:
        super().__init__(in_features, out_features, 1, bias, weight_bits, act_bits, widths)
        self.in_features, self.out_features = in_features, out_features

    @staticmethod
    def obstacle(layer: Any) -> str:
        return width_obstacle(layer)

    @classmethod
    def _settings(cls, layer: Any) -> dict[str, Any]:
        return dict(in_features=layer.in_features, out_features=layer.out_features)

    def _tokens(self, x: Tensor) -> Tensor:
        """Check state and shape, and return the input as a tensor."""
        self._check_state()
        x = dequantized(x)
        self._check_input(x)
        return x

    def extra_repr(self) -> str:
        return (
            f'{self.in_features}, {self.out_features}, bias={self.bias is not None}, '
            f'grid={self._low}...{self._high}'
        )


@MODELS.register_module()
class IntegerLinear(IntegerLinearLayer):
    """A quantized linear layer in integers, for inference.

    It computes what :class:`IntegerConv2d` computes for pixels.

    Args:
        in_features: Length of a token.
        out_features: Length of its product.
        weight_bits: Bits of the weights, for reports. Defaults to 8.
        act_bits: Bits of the input, for reports unless there are ``widths``. Defaults to 8.
        widths: As of :class:`IntegerConv2d`. Defaults to None.

    Shape:
        (..., in_features) to (..., out_features), in the dtype of the input.

    Raises:
        RuntimeError: If it is called without weights, or in training mode with gradients enabled.
        ValueError: If the last dimension of the input is not in_features.
    """

    _stands_for = QuantLinear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        weight_bits: int = 8,
        act_bits: float = 8,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__(in_features, out_features, True, weight_bits, act_bits, widths)

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        x = self._tokens(x)
        rows = self.rows(x)
        y = self._multiplied(rows, self.bias, rows.shape[1])
        return y.reshape(*x.shape[:-1], self.out_features)


@MODELS.register_module()
class IntegerWaveletCompressedLinear(IntegerWavelets, IntegerLinearLayer, TokenTransform):
    """A quantized wavelet compressed linear layer in integers, for inference.

    It reads the maps that the module around it announces, as :class:`WaveletCompressedLinear` does,
    and computes on them what :class:`IntegerWaveletCompressedConv2d` computes.

    Args:
        in_features: Length of a token.
        out_features: Length of its product.
        bias: Whether there is a bias. Defaults to True.
        keep_ratio: As of :class:`WaveletCompressedLinear`, like levels, wavelet and selection.
        weight_bits: Bits of the weights, for reports. Defaults to 8.
        act_bits: Bits of the coefficients, for reports unless there are ``widths``. Defaults to 8.
        widths: As of :class:`IntegerConv2d`. Defaults to None.

    Shape:
        As :class:`WaveletCompressedLinear`, in the dtype of the input.

    Raises:
        TypeError: If keep_ratio is not a number or levels is not an integer.
        ValueError: If keep_ratio is not in (0, 1], levels < 1, or wavelet or selection is unknown.
            In use, if the last dimension of the input is not in_features.
        RuntimeError: If it is called without weights, or in training mode with gradients enabled.
    """

    _stands_for = WaveletCompressedLinear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        keep_ratio: float,
        levels: int = 3,
        wavelet: str = 'haar',
        selection: str = 'energy',
        weight_bits: int = 8,
        act_bits: float = 8,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, weight_bits, act_bits, widths)
        self._build_transform(keep_ratio, levels, wavelet, selection)

    @classmethod
    def like(cls, layer: Any):
        integer = super().like(layer)
        # The module around the layer announces its maps to this object.
        integer.token_grid, integer.place = layer.token_grid, layer.place
        return integer

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        return self._transformed(self._tokens(x))
