"""The base of all quantizers: bits, the learned clip, its initialization, and what a layer needs to know."""
from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import MutableMapping

import torch
from torch import Tensor, nn

from mmwcc.functional import QuantizationSpec, one_call, quantize

from .calibration import CALIBRATIONS, Magnitudes, choose_clip, join, measure, nothing
from .ranks import several_ranks, warn_alone

__all__ = ['UniformQuantizer']

# What `initialized` holds: on which values the clip was learned.
_NOTHING, _PIXELS, _COEFFICIENTS, _ZEROS = range(4)


class UniformQuantizer(nn.Module, ABC):
    """Fake-quantize a tensor on a uniform grid with one learned clip.

    Subclasses say how gradients flow (:meth:`spec`) and what is quantized (weights or activations). The clip starts
    from the first training batch, or from several between :meth:`begin_calibration` and :meth:`end_calibration`. The
    buffer ``initialized`` remembers that in the checkpoint, so that a resumed run does not calibrate again. It is 0
    before, 1 after learning from values, 2 from wavelet coefficients, and 3 as long as all values were zero. In
    evaluation a quantizer without a learned clip uses that of the batch at hand, with a warning, and stores nothing.

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

    Attributes:
        clip_alpha: The clip, shape (1,).
        initialized: What the clip was learned on, a scalar buffer.
        signed: Whether negative values have levels, a scalar buffer.

    Raises:
        TypeError: If bits is not an integer.
        ValueError: If bits is not 2 ... 16 or 32, calibration is unknown, percentile is not in (0, 100] or
            initial_clip is not positive.
    """

    clip_alpha: nn.Parameter
    initialized: Tensor
    signed: Tensor

    def __init__(self, bits: int = 8, *, signed: bool | None = None, calibration: str | None = 'mse',
                 percentile: float = 99.9, initial_clip: float = 1.0) -> None:
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
        self._domain = _PIXELS
        self.clip_alpha = nn.Parameter(torch.empty(1))  # not a scalar, which FSDP refuses
        self.register_buffer('initialized', torch.empty((), dtype=torch.uint8))
        self.register_buffer('signed', torch.empty((), dtype=torch.uint8))
        self.settles_with_model = False  # whether a model calls settle, see settle_after_forward
        self.alone = False  # whether no other rank has this quantizer, as in a copy that one rank made
        self._seen: Magnitudes | None = None  # of all values since calibration began; None while none goes on
        self._learned: Magnitudes | None = None  # what this rank learned from, until it is settled
        self._known: bool | None = None  # signedness once settled: spares reading buffers from the device
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Forget what was learned, so that the next training batch calibrates."""
        self.clip_alpha.fill_(self.initial_clip)
        self.initialized.zero_()
        self.signed.fill_(self._sign is not False)
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
        """Return the static description of this quantizer for a tensor like ``x``."""

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
        self._domain = _COEFFICIENTS
        self.signed.fill_(1)

    def prepare(self, x: Tensor) -> Tensor:
        """Return what the grid is laid on: ``x``, or ``x`` normalized."""
        return x

    @property
    def positive_levels(self) -> int:
        """Number of steps between zero and the clip."""
        signed = bool(self.signed) if self._known is None else self._known
        return 2**(self.bits - 1) - 1 if signed else 2**self.bits - 1

    def arguments(self, x: Tensor) -> tuple[Tensor, Tensor, QuantizationSpec]:
        """Return clip, signedness and spec for quantizing ``x``, calibrating first where that is due.

        This is what :func:`mmwcc.functional.quantized_linear` and :func:`~mmwcc.functional.quantized_conv2d` take.
        """
        clip, signed = self.clip_alpha, self.signed
        if self._bits != 32 and (self._known is None or self._seen is not None):
            clip, signed = self._unsettled(x)
        return clip, signed, self.spec(x)

    @torch.compiler.disable
    def _unsettled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return clip and signedness as long as they are not settled, learning from ``x`` where that is due."""
        # Frozen stages of a backbone are in eval mode while the model trains.
        trains = self.training or (torch.is_grad_enabled() and not self.clip_alpha.requires_grad)
        learns = trains and not self.is_settled and self._learned is None
        if not x.is_meta and (self._seen is not None or learns):
            self.calibrate(x)
        if self.is_settled and self._seen is None:
            return self.clip_alpha, self.signed
        if self._learned is None and not (trains or x.is_meta or self._seen is not None):
            _warn_uninitialized(type(self).__name__)
            return self._choose(measure(self.prepare(x.detach())))
        clip, signed = (self.clip_alpha, self.signed) if self._learned is None else self._choose(self._learned)
        # The parameter will be written when the clip is settled, maybe before the backward pass of this call, so
        # autograd gets a copy that leads to it. The difference is zero, exactly.
        return clip.detach() + (self.clip_alpha - self.clip_alpha.detach()), signed.clone()

    @property
    def is_settled(self) -> bool:
        """Whether a clip was learned, and is the same on all ranks."""
        if self._known is None and self._learned is None:
            self._remember()
        return self._known is not None

    @property
    def met_zeros_alone(self) -> bool:
        """Whether it was used, but got no value other than zero: any clip serves those."""
        return int(self.initialized) == _ZEROS

    def _remember(self) -> None:
        """Read the buffers once, so that later calls (and traced ones) need not."""
        known = not self.initialized.is_meta and int(self.initialized) in (_PIXELS, _COEFFICIENTS)
        self._known = bool(self.signed) if known else None

    @torch.no_grad()
    def _choose(self, magnitudes: Magnitudes) -> tuple[Tensor, Tensor]:
        """Return the clip and the signedness that suit a histogram."""
        signed = magnitudes.negative.to(self.signed) if self._sign is None else self.signed
        if self.calibration is None or not magnitudes.largest > 0:
            return self.clip_alpha, signed
        levels = 2**(self.bits - 1) - 1 if signed else 2**self.bits - 1
        clip = choose_clip(magnitudes, self.calibration, levels, self.percentile)
        return self.clip_alpha.new_tensor([clip]), signed

    @torch.compiler.disable
    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Learn clip and signedness from ``x``, and remember that it was done.

        Between :meth:`begin_calibration` and :meth:`end_calibration` the values of all calls since the beginning count.
        Zeros alone teach nothing. With several ranks nothing is stored before
        :func:`mmwcc.quantizers.settle`.

        Args:
            x: Values to be quantized, any shape.
        """
        magnitudes = measure(self.prepare(x.detach()))
        if self._seen is not None:
            magnitudes = self._seen = join(self._seen, magnitudes)
        if magnitudes.largest > 0:
            self._learned, self._known = magnitudes, None
            if self.alone or not several_ranks():
                self._settle(magnitudes)
            elif self._seen is None and not self.settles_with_model:
                warn_alone(self)
        elif x.numel() and not x.any():
            self.initialized.fill_(_ZEROS)

    @torch.no_grad()
    def _settle(self, magnitudes: Magnitudes) -> None:
        """Store the clip and the signedness for these values."""
        clip, signed = self._choose(magnitudes)
        self.state_dict()  # FSDP2 answers by putting the shards in place, without which what is written is lost
        shard = self.clip_alpha.to_local() if hasattr(self.clip_alpha, 'to_local') else self.clip_alpha
        if shard.numel():
            shard.copy_(clip)
        self.signed.copy_(signed)
        self.initialized.fill_(self._domain)
        self._learned = None
        self._remember()

    def begin_calibration(self) -> None:
        """Forget what was learned, and learn from all values that come until :meth:`end_calibration`, in any mode.

        Each batch is quantized with the clip of all values so far, so that later layers learn from what they will get.
        """
        self._seen = nothing(self.clip_alpha.device)
        self.initialized.fill_(_NOTHING)
        self._learned = self._known = None

    def end_calibration(self) -> None:
        """Keep clip and signedness as they are now."""
        self._seen = None

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` rounded to the grid, shape and dtype of ``x``."""
        clip, signed, spec = self.arguments(x)
        return quantize(x, clip, signed, spec)

    def _load_from_state_dict(self, state_dict: MutableMapping[str, Tensor], prefix: str, *args, **kwargs) -> None:
        self._upgrade(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._seen = self._learned = None
        self._remember()

    def _upgrade(self, state_dict: MutableMapping[str, Tensor], prefix: str) -> None:
        """Make the state of 0.1, or of a quantizer of other values, one of this quantizer."""
        clip, initialized, signed = (f'{prefix}{name}' for name in ('clip_alpha', 'initialized', 'signed'))
        if clip in state_dict and state_dict[clip].dim() == 0:
            state_dict[clip] = state_dict[clip].reshape(1)
        if clip in state_dict and signed not in state_dict and self._sign:
            state_dict[signed] = torch.ones((), dtype=torch.uint8)  # 0.1 wrote none for weights
        if initialized in state_dict and state_dict[initialized] not in (_NOTHING, _ZEROS, self._domain):
            state_dict[initialized] = torch.zeros_like(state_dict[initialized])
            if self._sign:
                state_dict[signed] = torch.ones_like(state_dict[initialized])

    def extra_repr(self) -> str:
        return f'bits={self.bits}, calibration={self.calibration!r}'


_warned: set[str] = set()


def _warn_uninitialized(name: str) -> None:
    if name not in _warned:
        _warned.add(name)
        warnings.warn(
            f'{name}: evaluated before its clip was learned, so each batch is quantized with a clip of its own. Load '
            'a compressed checkpoint, or train or calibrate the model first.', stacklevel=4)
