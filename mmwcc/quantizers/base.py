"""The base of all quantizers: bits, the learned clip, its state, and what a layer needs to know."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import MutableMapping

import torch
from torch import Tensor, nn

from mmwcc.functional import QuantizationSpec, one_call, quantize
from mmwcc.functional.quantization import normalization

from .calibration import CALIBRATIONS
from .granularity import LAYER, Granularity
from .learning import ClipLearner
from .state import COEFFICIENTS, PIXELS, VERSION, refusal, upgrade

__all__ = ['UniformQuantizer']

_FINAL = ('forward', 'arguments', 'calibrate', 'prepare')
"""What no subclass overrides: not every layer that has a quantizer would call it."""


class UniformQuantizer(ClipLearner, ABC):
    """Fake-quantize a tensor on a uniform grid with a learned clip, or one for each output channel.

    What a subclass decides is data: :meth:`spec` says how it rounds and how gradients flow, and ``scales`` which
    values share a clip. Layers and exports read these and do the rest themselves, so :meth:`forward` and what it is
    made of are final.

    The clip starts from the first training batch, or from several between :meth:`begin_calibration` and
    :meth:`end_calibration`. The buffer ``initialized`` remembers that in the checkpoint, so that a resumed run does not
    calibrate again. It is 0 before, 1 after learning from values, 2 from wavelet coefficients, and 3 as long as all
    values were zero. In evaluation a quantizer without a learned clip uses that of the batch at hand, with a warning,
    and stores nothing.

    No call communicates with other ranks. Where several ranks train together, each uses the clip that it learned itself
    until :func:`mmwcc.quantizers.settle` gives all of them the clip of their values together.

    Args:
        bits: Width in 2 ... 16, or 32 for no quantization. Can be set at any time.
        signed: Whether negative values have levels. None decides at calibration: signed if any rank saw a negative
            value. Defaults to None.
        calibration: 'mse' (least squared error), 'percentile', 'lsq', or None to start at ``initial_clip``.
            Defaults to 'mse'.
        percentile: Share of magnitudes below the clip in percent, for ``calibration='percentile'``. Defaults to 99.9.
        initial_clip: Start of the clip before, or without, calibration. Defaults to 1.0.
        scales: Which values share a clip. Defaults to ``LAYER``, all of them.

    Attributes:
        clip_alpha: The clip, shape (1,), or the clips, shape (out_channels,). The layer that owns the quantizer, or
            else its first tensor, tells how many there are.
        initialized: What the clip was learned on, a scalar buffer.
        signed: Whether negative values have levels, a scalar buffer.
        granularity: The code of ``scales``, a scalar buffer; only where there may be several clips.

    Raises:
        TypeError: If bits is not an integer, or where a subclass overrides what is final.
        ValueError: If bits is not 2 ... 16 or 32, calibration is unknown, percentile is not in (0, 100] or
            initial_clip is not positive, or signed is None where there are several clips.
    """

    _version = VERSION

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        changed = [name for name in _FINAL if getattr(cls, name) is not getattr(UniformQuantizer, name)]
        if changed:
            raise TypeError(f'{cls.__name__}: a quantizer must not override {changed[0]}, because layers quantize '
                            'without calling it. Say in spec() how it rounds and how gradients flow.')

    def __init__(self, bits: int = 8, *, signed: bool | None = None, calibration: str | None = 'mse',
                 percentile: float = 99.9, initial_clip: float = 1.0, scales: Granularity = LAYER) -> None:
        super().__init__()
        name = type(self).__name__
        if calibration is not None and calibration not in CALIBRATIONS:
            raise ValueError(f"{name}: calibration must be one of {', '.join(CALIBRATIONS)} or None, got "
                             f"{calibration!r}. Use 'mse' for the clip of least squared error.")
        if not 0 < percentile <= 100:
            raise ValueError(f'{name}: percentile must be in (0, 100], got {percentile}. Use 99.9 to clip one '
                             'magnitude in a thousand.')
        if not initial_clip > 0:
            raise ValueError(f'{name}: initial_clip must be positive, got {initial_clip}. Use 1.0, or let '
                             'calibration choose it.')
        self.bits = bits
        self.calibration = calibration
        self.percentile = percentile
        self.initial_clip = float(initial_clip)
        self._sign = signed  # None where calibration decides
        self._domain = PIXELS
        if scales.axes and signed is None:
            raise ValueError(f'{name}: signed must be True or False where there are several clips, got None. Use '
                             'True for weights.')
        self.scales = scales
        self.clip_alpha = nn.Parameter(torch.empty(1))  # not a scalar, which FSDP refuses
        self.register_buffer('initialized', torch.empty((), dtype=torch.uint8))
        self.register_buffer('signed', torch.empty((), dtype=torch.uint8))
        self.settles_with_model = False  # whether a model calls settle, see settle_after_forward
        self.alone = False  # whether no other rank has this quantizer, as in a copy that one rank made
        if scales.axes:
            self.register_buffer('granularity', torch.empty((), dtype=torch.uint8))
        self._seen = None  # of all values since calibration began; None while none goes on
        self._learned = None  # what this rank learned from, until it is settled
        self._learned_at = None
        self._known = None  # signedness once settled: spares reading buffers from the device
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Forget what was learned, so that the next training batch calibrates."""
        self.clip_alpha.fill_(self.initial_clip)
        self.initialized.zero_()
        self.signed.fill_(self._sign is not False)
        if self.scales.axes:
            self.granularity.fill_(self.scales.code)
        self._learned = self._known = None

    @property
    def bits(self) -> int:
        """Width in 2 ... 16, or 32 for no quantization."""
        return self._bits

    @bits.setter
    def bits(self, bits: int) -> None:
        name = type(self).__name__
        if isinstance(bits, bool) or not isinstance(bits, int):
            raise TypeError(f'{name}: bits must be an integer, got {bits!r}. Use 8, or 32 for no quantization.')
        if not (2 <= bits <= 16 or bits == 32):
            raise ValueError(f'{name}: bits must be in 2 ... 16, or 32 for no quantization, got {bits}. Use 8 for a '
                             'start.')
        self._bits = bits

    @abstractmethod
    def spec(self, x: Tensor) -> QuantizationSpec:
        """Return the static description of this quantizer for a tensor like ``x``, with ``axes=self.scales.axes``."""

    def expect_coefficients(self, owner: str) -> None:
        """Prepare for wavelet coefficients: signed whatever the first batch looks like, with a clip of their own.

        The clip of a checkpoint that was learned on pixels (of a quantized convolution) is then not taken over: the
        first training batch chooses a new one.

        Args:
            owner: Name of the layer that the error speaks for.

        Raises:
            ValueError: If this quantizer was built with signed=False.
        """
        if self._sign is False:
            raise ValueError(f'{owner}: act_quant must be signed, got signed=False: wavelet coefficients are negative '
                             'as often as positive. Leave signed out, or use signed=True.')
        self._sign = True
        self._domain = COEFFICIENTS
        self.signed.fill_(1)

    def prepare(self, x: Tensor) -> Tensor:
        """Return what the grid is laid on: ``x``, or ``x`` normalized.

        Raises:
            ValueError: If the values are all equal, so that they have no deviation to divide by.
        """
        normalize = self.spec(x).normalize
        if not normalize:
            return x
        mean, std = normalization(x)
        if not std > 0:
            raise ValueError(f'{type(self).__name__}: the weights must differ from each other for normalize='
                             f'{normalize!r}, got a tensor of shape {tuple(x.shape)} with std {std.item():g}. '
                             'Use normalize=None for this layer, or keep it dense.')
        return (x - mean) / std

    @property
    def positive_levels(self) -> int:
        """Number of steps between zero and the clip."""
        return self._steps(bool(self.signed) if self._known is None else self._known)

    def arguments(self, x: Tensor) -> tuple[Tensor, Tensor, QuantizationSpec]:
        """Return clip, signedness and spec for quantizing ``x``, calibrating first where that is due.

        This is what :func:`mmwcc.functional.quantized_linear` and :func:`~mmwcc.functional.quantized_conv2d` take.
        """
        clip, signed = self.clip_alpha, self.signed
        if self._bits != 32 and (self._known is None or self._seen is not None):
            clip, signed = self._unsettled(x)
        return clip, signed, self.spec(x)

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` rounded to the grid, shape and dtype of ``x``."""
        clip, signed, spec = self.arguments(x)
        return quantize(x, clip, signed, spec)

    def _load_from_state_dict(self, state_dict: MutableMapping[str, Tensor], prefix: str, local_metadata: dict,
                              strict: bool, missing_keys: list, unexpected_keys: list, error_msgs: list) -> None:
        wrong = refusal(self, state_dict, prefix, local_metadata.get('version') or 1)
        if wrong:
            error_msgs.append(wrong)
            self.reset_parameters()  # loaders that go on after an error must not leave half a state
            return
        upgrade(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                                      error_msgs)
        self._seen = self._learned = None
        self._remember()

    def extra_repr(self) -> str:
        text = f'bits={self.bits}, calibration={self.calibration!r}'
        return f'{text}, scales={self.scales.name!r}' if self.scales.axes else text
