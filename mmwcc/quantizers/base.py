"""The base of all quantizers: bits, the learned clip, its state, and what layers read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import MutableMapping

import torch
from torch import Tensor, nn

from mmwcc.functional import QuantizationSpec, normalization, one_call, quantize, unit_rows

from .calibration import CALIBRATIONS
from .granularity import LAYER, WIDTH, Granularity
from .learning import ClipLearner
from .state import COEFFICIENTS, PIXELS, VERSION, refusal, upgrade
from .whole import Whole

__all__ = ['UniformQuantizer']

_FINAL = ('forward', 'arguments', 'calibrate', 'prepare')
"""What no subclass may override, because layers with a quantizer need not call it."""


class UniformQuantizer(ClipLearner, ABC):
    """Fake-quantize a tensor on a uniform grid with a learned clip.

    There is one clip for the tensor, or one for each output channel.

    A subclass decides by data alone. :meth:`spec` says how it rounds and how gradients flow, and
    ``scales`` says which values share a clip. Layers and exports read these and do the rest
    themselves. Therefore :meth:`forward` and the methods that it consists of are final.

    The clip is learned from the first training batch, or from all batches between
    :meth:`begin_calibration` and :meth:`end_calibration`. The buffer ``initialized`` records this
    in the checkpoint, so that a resumed run does not calibrate again. It is 0 before anything was
    learned, 1 after learning from values, 2 after learning from wavelet coefficients, and 3 as long
    as all values were zero. It is an error to evaluate a quantizer without a learned clip, unless
    ``may_be_unlearned`` is set. It then uses the clip of the batch at hand, with a warning, and
    stores nothing.

    No call communicates with other ranks. Where several ranks train together, each first uses the
    clip that it learned itself. :func:`mmwcc.quantizers.settle` then gives all ranks the clip of
    all their values together.

    Args:
        bits: Width in 2 ... 16, or 32 for no quantization. It can be set at any time.
        signed: Whether negative values have levels. With None, calibration decides: signed if any
            rank saw a negative value. Defaults to None.
        calibration: 'mse' (least squared error), 'percentile', 'lsq', or None to start at
            ``initial_clip``. Defaults to 'mse'.
        percentile: Share of magnitudes below the clip in percent, for ``calibration='percentile'``.
            Defaults to 99.9.
        initial_clip: Value of the clip before calibration, or without it. Defaults to 1.0.
        scales: Which values share a clip. Defaults to ``LAYER``, all of them.

    Attributes:
        clip_alpha: The clip, shape (1,), or the clips, shape (out_channels,) or (widths,). The
            number of channels comes from the layer that owns the quantizer, or else from its first
            tensor.
        initialized: What the clip was learned from, a scalar buffer.
        signed: Whether negative values have levels, a scalar buffer.
        granularity: The code of ``scales``, a scalar buffer. It exists only if there may be several
            clips.

    Raises:
        TypeError: If bits is not an integer, or if a subclass overrides what is final.
        ValueError: If bits is not 2 ... 16 or 32, calibration is unknown, percentile is not in
            (0, 100] or initial_clip is not positive, or if signed is None where there are several
            clips.
    """

    _version = VERSION

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        changed = [
            name for name in _FINAL if getattr(cls, name) is not getattr(UniformQuantizer, name)
        ]
        if changed:
            raise TypeError(
                f'{cls.__name__}: a quantizer must not override {changed[0]}, because layers '
                'quantize without calling it. Say in spec() how it rounds and how gradients flow.'
            )

    def __init__(
        self,
        bits: int = 8,
        *,
        signed: bool | None = None,
        calibration: str | None = 'mse',
        percentile: float = 99.9,
        initial_clip: float = 1.0,
        scales: Granularity = LAYER,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if calibration is not None and calibration not in CALIBRATIONS:
            raise ValueError(
                f'{name}: calibration must be one of {", ".join(CALIBRATIONS)} or None, got '
                f"{calibration!r}. Use 'mse' for the clip of least squared error."
            )
        if not 0 < percentile <= 100:
            raise ValueError(
                f'{name}: percentile must be in (0, 100], got {percentile}. Use 99.9 to clip one '
                'magnitude in a thousand.'
            )
        if not initial_clip > 0:
            raise ValueError(
                f'{name}: initial_clip must be positive, got {initial_clip}. Use 1.0, or let '
                'calibration choose it.'
            )
        self.bits = bits
        self.calibration = calibration
        self.percentile = percentile
        self.initial_clip = float(initial_clip)
        self._sign = signed  # None if calibration decides
        self._domain = PIXELS
        if scales.axes and signed is None:
            raise ValueError(
                f'{name}: signed must be True or False where there are several clips, got None. '
                'Use True for weights.'
            )
        self.scales = scales
        # Not a scalar, even for one clip: FSDP refuses those.
        self.clip_alpha = nn.Parameter(torch.empty(scales.clips or 1))
        self.register_buffer('initialized', torch.empty((), dtype=torch.uint8))
        self.register_buffer('signed', torch.empty((), dtype=torch.uint8))
        self.whole = Whole()
        self.settles_with_model = False  # whether a model calls settle (see settle_after_forward)
        self.alone = False  # whether this rank alone has the quantizer, as in a copy it made
        if scales != LAYER:
            self.register_buffer('granularity', torch.empty((), dtype=torch.uint8))
        self._seen = None  # from all values since calibration began; None outside of it
        self._learned = None  # what this rank learned, until that is settled
        self._learned_at = None
        self._known = None  # signedness once settled, to spare reading buffers from the device
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Forget what was learned, so that the next training batch calibrates again."""
        self.clip_alpha.fill_(self.initial_clip)
        self.initialized.zero_()
        self.signed.fill_(self._sign is not False)
        if self.scales != LAYER:
            self.granularity.fill_(self.scales.code)
        self._learned = self._known = None

    @property
    def bits(self) -> int:
        """Width in 2 ... 16, or 32 for no quantization."""
        return self._bits

    @bits.setter
    def bits(self, bits: int) -> None:
        self.check_bits(bits)
        self._bits = bits

    def check_bits(self, bits: int) -> None:
        """Refuse bits that this quantizer cannot have.

        Raises:
            TypeError: If bits is not an integer.
            ValueError: If bits is out of range.
        """
        name = type(self).__name__
        if isinstance(bits, bool) or not isinstance(bits, int):
            raise TypeError(
                f'{name}: bits must be an integer, got {bits!r}. Use 8, or 32 for no quantization.'
            )
        if not (2 <= bits <= 16 or bits == 32):
            raise ValueError(
                f'{name}: bits must be in 2 ... 16, or 32 for no quantization, got {bits}. Use 8 '
                'for a start.'
            )

    @property
    def is_on(self) -> bool:
        """Whether values are rounded at all, which they are not at 32 bits."""
        return self._bits != 32

    @abstractmethod
    def spec(self, x: Tensor) -> QuantizationSpec:
        """Return the static description of this quantizer for a tensor like ``x``.

        It must have ``axes=self.scales.axes``.
        """

    def expect_coefficients(self, owner: str) -> None:
        """Prepare for wavelet coefficients, which are signed and have a clip of their own.

        The quantizer is then signed, even if the first batch has no negative value.
        A clip that was learned on pixels, as in the checkpoint of a quantized convolution, is then
        not loaded. The first training batch chooses a new one.

        Args:
            owner: Name of the layer that the error message names.

        Raises:
            ValueError: If this quantizer was built with signed=False.
        """
        if self._sign is False:
            raise ValueError(
                f'{owner}: act_quant must be signed, got signed=False: wavelet coefficients are '
                'negative as often as positive. Leave signed out, or use signed=True.'
            )
        self._sign = True
        self._domain = COEFFICIENTS
        self.signed.fill_(1)

    @property
    def position_widths(self) -> tuple[int, ...] | None:
        """Bits that a position can have, if each has a scale of its own, otherwise None.

        () means that all positions have the same.
        """
        return None

    @property
    def largest_share(self) -> float:
        """Largest share of positions that can have bits at all, in (0, 1]."""
        return 1.0

    def prepare(self, x: Tensor) -> Tensor:
        """Return the values that are rounded to the grid: ``x``, or ``x`` normalized.

        Raises:
            ValueError: If all values are equal, so that there is no deviation to divide by.
        """
        if self.scales == WIDTH:
            return unit_rows(x)
        normalize = self.spec(x).normalize
        if not normalize:
            return x
        mean, std = normalization(x)
        if not std > 0:
            raise ValueError(
                f'{self.title}: the weights must differ from each other for normalize='
                f'{normalize!r}, got a tensor of shape {tuple(x.shape)} with std {std.item():g}. '
                'Use normalize=None for this layer, or keep it dense.'
            )
        return (x - mean) / std

    @property
    def positive_levels(self) -> int:
        """Number of steps between zero and the clip."""
        return self._steps(bool(self.signed) if self._known is None else self._known)

    def arguments(
        self, x: Tensor, positions: int | None = None
    ) -> tuple[Tensor, Tensor, QuantizationSpec]:
        """Return clip, signedness and spec for quantizing ``x``, after calibration if that is due.

        This is what :func:`mmwcc.functional.quantized_linear` and
        :func:`~mmwcc.functional.quantized_conv2d` take.

        Args:
            x: What is quantized.
            positions: Number of positions of the map that ``x`` holds some rows of. Defaults to
                None: it is all of the map.
        """
        clip, signed = self.clip_alpha, self.signed
        if self.is_on and (self._known is None or self._seen is not None):
            clip, signed = self._unsettled(x)
        return clip, signed, self.spec(x).among(positions)

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` rounded to the grid, with the shape and dtype of ``x``."""
        clip, signed, spec = self.arguments(x)
        return quantize(x, clip, signed, spec)

    def _load_from_state_dict(
        self,
        state_dict: MutableMapping[str, Tensor],
        prefix: str,
        local_metadata: dict,
        strict: bool,
        missing_keys: list,
        unexpected_keys: list,
        error_msgs: list,
    ) -> None:
        wrong = refusal(self, state_dict, prefix, local_metadata.get('version') or 1)
        if wrong:
            error_msgs.append(wrong)
            self.reset_parameters()  # loaders may go on after an error: leave no partial state
            return
        upgrade(self, state_dict, prefix)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self._seen = self._learned = None
        self._remember()

    def extra_repr(self) -> str:
        text = f'bits={self.bits}, calibration={self.calibration!r}'
        return text if self.scales == LAYER else f'{text}, scales={self.scales.name!r}'
