"""Quantization of activations with a scale, and if wanted a number of bits, for each position."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmwcc.functional import QuantizationSpec, largest_share
from mmwcc.kernels import WIDTHS
from mmwcc.registry import MODELS

from .base import UniformQuantizer
from .granularity import WIDTH
from .learning import steps_of
from .roles import ActQuantizer

__all__ = ['EnergyActQuantizer']

_MOST = WIDTHS[-1]


@MODELS.register_module()
class EnergyActQuantizer(ActQuantizer):
    """Quantize each position on a scale of its own, with bits by its energy.

    A position is a wavelet coefficient or a pixel, over all channels. Its scale is the root mean
    square of its values times a learned clip. There is one clip for each number of bits.

    With ``widths``, the number of bits differs from position to position: reverse water-filling
    divides a budget of ``bits`` on the mean over all positions of an image. Positions that get 0
    bits are dropped. Without ``widths``, all positions that a layer keeps have ``bits`` bits.

    Args:
        bits: Without ``widths``, the width of all positions, in 2 ... 8. With ``widths``, the mean
            number of bits, any number in (0, 8]. 32 means no quantization. It can be set at any
            time. Defaults to 4.
        widths: Numbers of bits that a position can have, ascending, out of 0 and 2 ... 8. It can be
            set at any time. Defaults to None, which gives all positions the same.
        **learning: ``signed``, ``calibration``, ``percentile``, ``initial_clip`` and ``symmetric``
            as for :class:`ActQuantizer`. Clips are in units of the root mean square of a position.

    Raises:
        TypeError: If bits is not a number, or widths not a sequence of integers.
        ValueError: If bits or widths is out of range, or bits is less than the smallest width.

    Example:
        >>> rows = torch.tensor([[[8.0, 4.0], [0.2, 0.1], [0.02, 0.01]]])
        >>> quantizer = EnergyActQuantizer(bits=3, widths=(0, 3, 6))
        >>> bits_of_positions(rows, quantizer.spec(rows)).tolist()
        [[6, 3, 0]]

    Reference:
        The scale of a position, alone, is quantization per token (Dettmers et al., LLM.int8(),
        NeurIPS 2022). Bits by energy: Cover and Thomas, Elements of Information Theory, section
        10.3.3. The gradient of clips: Esser et al., Learned Step Size Quantization, ICLR 2020.
    """

    default_clip = 3.0
    kind_of_scales = WIDTH

    def __init__(self, bits: float = 4, *, widths: Sequence[int] | None = None, **learning) -> None:
        self._widths = None if widths is None else self._checked(widths)
        super().__init__(bits, **learning)  # type: ignore[arg-type]  # a mean need not be whole

    def _checked(self, widths: Sequence[int]) -> tuple[int, ...]:
        """Return widths as a tuple, and refuse those that are none."""
        name, allowed = type(self).__name__, (0, *WIDTHS)
        remedy = 'Use (0, 3, 4, 5, 6, 8).'
        numbers = isinstance(widths, Sequence) and all(type(width) is int for width in widths)
        if not numbers or isinstance(widths, str):
            raise TypeError(
                f'{name}: widths must be a sequence of integers, got {widths!r}. {remedy}'
            )
        wrong = [width for width in widths if width not in allowed]
        if wrong:
            raise ValueError(
                f'{name}: widths must be out of 0 and {WIDTHS[0]} ... {_MOST}, got {wrong[0]}. '
                f'{remedy}'
            )
        if list(widths) != sorted(set(widths)) or not any(widths):
            raise ValueError(
                f'{name}: widths must be ascending, each once and one above 0, got '
                f'{tuple(widths)}. {remedy}'
            )
        return tuple(widths)

    @property
    def widths(self) -> tuple[int, ...] | None:
        """Numbers of bits that a position can have, or None if all have the same."""
        return self._widths

    @widths.setter
    def widths(self, widths: Sequence[int] | None) -> None:
        checked, before = None if widths is None else self._checked(widths), self._widths
        self._widths = checked
        try:
            self.check_bits(self.bits)
        except (TypeError, ValueError):
            self._widths = before
            raise

    def check_bits(self, bits: float) -> None:
        name = type(self).__name__
        if isinstance(bits, bool) or not isinstance(bits, (int, float)):
            raise TypeError(
                f'{name}: bits must be a number, got {bits!r}. Use 4, or 32 for no quantization.'
            )
        if bits == 32:
            return
        if self._widths is None:
            if bits not in WIDTHS or not isinstance(bits, int):
                raise ValueError(
                    f'{name}: bits must be in {WIDTHS[0]} ... {_MOST}, or 32 for no quantization, '
                    f'got {bits}. Give widths, such as (0, 3, 4, 5, 6, 8), for a mean number of '
                    'bits that is not one of them.'
                )
            return
        if not 0 < bits <= _MOST:
            raise ValueError(
                f'{name}: bits must be in (0, {_MOST}], or 32 for no quantization, got {bits}. It '
                'is the mean over all positions: use 2.'
            )
        if bits < self._widths[0]:
            raise ValueError(
                f'{name}: bits must be at least the smallest width, got {bits} for widths '
                f'{self._widths}. Add 0 to the widths, so that positions can be dropped.'
            )

    @property
    def position_widths(self) -> tuple[int, ...]:
        """The widths, or () if all positions have the same."""
        return self._widths or ()

    @property
    def largest_share(self) -> float:
        """Largest share of positions that can have bits at all, in (0, 1]."""
        return largest_share(self.bits, self._widths) if self.is_on else 1.0

    @property
    def positive_levels(self) -> int:
        """Number of steps between zero and the clip, for positions with the most bits."""
        return steps_of(self._widest, bool(self.signed) if self._known is None else self._known)

    @property
    def _widest(self) -> int:
        return int(self.bits) if self._widths is None else self._widths[-1]

    def spec(self, x: Tensor) -> QuantizationSpec:
        if not self.is_on:
            return QuantizationSpec(32)
        widths = (int(self.bits),) if self._widths is None else self._widths
        values = max(1, x[0].numel() if len(x) else 1)  # of one image, whatever the batch
        return QuantizationSpec(
            self._widest,
            self.symmetric,
            alpha_scale=values**-0.5,
            widths=widths,
            mean_bits=float(self.bits),
        )

    def extra_repr(self) -> str:
        text = UniformQuantizer.extra_repr(self)
        return text if self._widths is None else f'{text}, widths={self._widths}'
