"""The base of all quantizers: bits, the learned clip, its initialization, and what a layer needs to know."""
from __future__ import annotations

import warnings
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from mmwcc.functional.quantization import QuantizationSpec, quantize

from .calibration import CALIBRATIONS, Magnitudes, choose_clip, join, measure

__all__ = ['UniformQuantizer']

_PIXELS, _COEFFICIENTS = 1, 2  # what `initialized` holds once a clip was learned: on which kind of values


class UniformQuantizer(nn.Module, ABC):
    """Fake-quantize a tensor on a uniform grid with one learned clip.

    Subclasses say how gradients flow (:meth:`spec`) and what is quantized (weights or activations). The clip starts
    from the first training batch, or from several between :meth:`begin_calibration` and :meth:`end_calibration`: the
    buffer ``initialized`` remembers that in the checkpoint (0: not yet, 1: on values, 2: on wavelet coefficients), so a
    resumed run does not calibrate again. In evaluation an uninitialized quantizer uses the clip of the batch at hand,
    with a warning, and stores nothing.

    Args:
        bits: Width in 2 ... 16, or 32 for no quantization. Can be set at any time.
        signed: Whether negative values have levels. None decides at calibration: signed if any rank saw a negative
            value. Defaults to None.
        calibration: 'mse' (least squared error), 'percentile', 'lsq', or None to start at ``initial_clip``.
            Defaults to 'mse'.
        percentile: Share of magnitudes below the clip in percent, for ``calibration='percentile'``. Defaults to 99.9.
        initial_clip: Start of the clip before, or without, calibration. Defaults to 1.0.

    Raises:
        TypeError: If bits is not an integer.
        ValueError: If bits is not 2 ... 16 or 32, calibration is unknown, percentile is not in (0, 100] or
            initial_clip is not positive.
    """

    shared_between_ranks = False
    """Whether every rank sees the same values (weights), so that calibration need not reduce."""

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
        self._decides_sign = signed is None
        self._domain = _PIXELS
        self.clip_alpha = nn.Parameter(torch.tensor(float(initial_clip)))
        self.register_buffer('initialized', torch.tensor(0, dtype=torch.uint8))
        self.register_buffer('signed', torch.tensor(signed is not False, dtype=torch.uint8),
                             persistent=not self.shared_between_ranks)
        self._seen: Magnitudes | None = None  # of all values since calibration began; None while none goes on
        self._known: bool | None = None  # signedness, once `initialized` was seen to be set: spares device reads

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
        if not self._decides_sign and not self.signed:
            raise ValueError(f'{owner}: act_quant must be signed, got signed=False: wavelet coefficients are negative '
                             'as often as positive. Leave signed out, or use signed=True.')
        self._decides_sign = False
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
        if self.bits != 32 and (self._seen is not None or not self._is_initialized()):
            # Frozen stages of a backbone are in eval mode while the model trains.
            if self._seen is not None or self.training or (torch.is_grad_enabled() and not clip.requires_grad):
                self.calibrate(x)
            else:
                _warn_uninitialized(type(self).__name__)
                clip, signed, _ = self._choose(self._measure(x))
        return clip, signed, self.spec(x)

    def _is_initialized(self) -> bool:
        if self._known is None:
            self._remember()
        return self._known is not None

    def _remember(self) -> None:
        """Read the buffers once, so that later calls (and traced ones) need not."""
        known = not self.initialized.is_meta and bool(self.initialized)
        self._known = bool(self.signed) if known else None

    @torch.no_grad()
    def _measure(self, x: Tensor) -> Magnitudes:
        return measure(self.prepare(x.detach()), reduce=not self.shared_between_ranks)

    @torch.no_grad()
    def _choose(self, magnitudes: Magnitudes) -> tuple[Tensor, Tensor, bool]:
        """Return clip and signedness for a histogram, and whether anything could be learned from it."""
        signed = magnitudes.negative if self._decides_sign else self.signed.bool()
        if self.calibration is None:
            return self.clip_alpha, signed, True
        levels = 2**(self.bits - 1) - 1 if signed else 2**self.bits - 1
        clip = choose_clip(magnitudes, self.calibration, levels, self.percentile)
        return (self.clip_alpha.new_tensor(clip) if clip > 0 else self.clip_alpha), signed, clip > 0

    @torch.compiler.disable
    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set the clip and the signedness from ``x`` (of all ranks together) and remember that it was done.

        Between :meth:`begin_calibration` and :meth:`end_calibration` the values of all calls since the beginning count.
        Zeros alone teach nothing and leave the quantizer uninitialized.

        Args:
            x: Values to be quantized, any shape. With torch.distributed every rank must call this.
        """
        magnitudes = self._measure(x)
        if self._seen is not None:
            magnitudes = self._seen = join(self._seen, magnitudes)
        clip, signed, learned = self._choose(magnitudes)
        self.clip_alpha.copy_(clip)
        self.signed.copy_(signed)
        self.initialized.fill_(self._domain if learned else 0)
        self._remember()

    def begin_calibration(self) -> None:
        """Forget what was learned, and learn from all values that come until :meth:`end_calibration`, in any mode.

        Each batch is quantized with the clip of all values so far, so that later layers learn from what they will get.
        """
        device = self.clip_alpha.device
        self._seen = measure(torch.zeros(0, device=device), reduce=False)
        self.initialized.fill_(0)
        self._remember()

    def end_calibration(self) -> None:
        """Keep clip and signedness as they are now."""
        self._seen = None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` rounded to the grid, shape and dtype of ``x``."""
        clip, signed, spec = self.arguments(x)
        return quantize(x, clip, signed, spec)

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if not self.initialized.is_meta and self.initialized not in (0, self._domain):
            self.initialized.fill_(0)
            if self._domain == _COEFFICIENTS:
                self.signed.fill_(1)
        self._remember()

    def extra_repr(self) -> str:
        return f'bits={self.bits}, calibration={self.calibration!r}'


_warned: set[str] = set()


@torch.compiler.disable
def _warn_uninitialized(name: str) -> None:
    if name not in _warned:
        _warned.add(name)
        warnings.warn(
            f'{name}: evaluated before its clip was learned, so each batch is quantized with a clip of its own. Load '
            'a compressed checkpoint, or train or calibrate the model first.', stacklevel=3)
