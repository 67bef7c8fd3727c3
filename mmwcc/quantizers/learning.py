"""How a quantizer learns its clip: when, from which values, and what it remembers."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from mmwcc.kernels import WIDTHS

from .calibration import Clips, Magnitudes, choose_clip, choose_clips, join, measure, nothing
from .granularity import LAYER, WIDTH, Granularity
from .ranks import several_ranks, warn_alone
from .state import COEFFICIENTS, NOTHING, PIXELS, ZEROS
from .whole import Whole

__all__ = ['ClipLearner']


class ClipLearner(nn.Module):
    """Learn a clip from the first training batch, or from all batches of a calibration.

    This class holds the learning only. Layers use :class:`~mmwcc.quantizers.UniformQuantizer`,
    which also creates the attributes that this class works on.
    """

    bits: int
    calibration: str | None
    percentile: float
    scales: Granularity
    clip_alpha: nn.Parameter
    initialized: Tensor
    signed: Tensor
    granularity: Tensor
    settles_with_model: bool
    alone: bool
    place: str = ''
    """Qualified name in the model that was compressed, which messages give. May be empty."""

    whole: Whole
    """The model that settles the clip, see :func:`mmwcc.quantizers.settle_after_forward`."""

    may_be_unlearned: bool = False
    """Whether it may be evaluated before it has learned a clip."""

    _sign: bool | None
    _domain: int
    _seen: Magnitudes | Clips | None
    _learned: Magnitudes | Clips | None
    _known: bool | None
    _left: int = NOTHING  # what an unsuitable clip was learned from that was not loaded
    _learned_at: int | None  # version of the clip when this rank learned

    @abstractmethod
    def prepare(self, x: Tensor) -> Tensor:
        """Return the values that are rounded to the grid."""

    @property
    def title(self) -> str:
        """The class and the place, with which messages begin."""
        kind = type(self).__name__
        return f'{kind} of {self.place}' if self.place else kind

    @property
    def extra_clips(self) -> int:
        """Number of clips that are stored with the weights, or 0 if one serves the layer."""
        return 0 if self.scales == LAYER else self.clip_alpha.numel()

    def fit(self, clips: int) -> None:
        """Make room for a number of clips, if there may be several.

        The parameter stays the same object, so that an optimizer that holds it still holds it.

        Raises:
            ValueError: If there already is another number of clips.
        """
        present = self.clip_alpha.numel()
        if not self.scales.axes or present == clips:
            return
        if present != 1:
            raise ValueError(
                f'{self.title}: a tensor must have one index for each of {present} clips, got '
                f'{clips}. Give each layer a quantizer of its own.'
            )
        self.clip_alpha.data = self.clip_alpha.data.expand(clips).clone()

    @torch.compiler.disable
    def _unsettled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return clip and signedness while they are unsettled, learning from ``x`` if that is
        due.
        """
        self._fit_to(x)
        trains = self._trains()
        learns = trains and not self.is_settled and self._learned is None
        if not x.is_meta and (self._seen is not None or learns):
            self.calibrate(x)
        if self.is_settled and self._seen is None:
            return self.clip_alpha, self.signed
        if self._learned is None and not (trains or x.is_meta or self._seen is not None):
            present = self._measure(x)
            if present.largest > 0:  # zeros need no clip
                self._complain_of_no_clip()
            return self._choose(present)
        if self._learned is not None and self._seen is None and trains:
            self._complain_if_alone()
        clip, signed = (
            (self.clip_alpha, self.signed) if self._learned is None else self._choose(self._learned)
        )
        # The parameter is written when the clip is settled, maybe before the backward pass of this
        # call. So autograd gets a copy whose gradient leads to the parameter. The difference that
        # is added is exactly zero.
        return clip.detach() + (self.clip_alpha - self.clip_alpha.detach()), signed.clone()

    def _trains(self) -> bool:
        """Tell whether this call is part of a training.

        Frozen stages of a backbone are in eval mode while the model trains. Those of a teacher also
        run without gradients. In a model that is not known, a frozen clip tells a frozen stage.
        """
        model_trains = self.whole.training
        if model_trains is None:
            model_trains = torch.is_grad_enabled() and not self.clip_alpha.requires_grad
        return self.training or model_trains

    def _complain_of_no_clip(self) -> None:
        """Refuse to be evaluated before a clip was learned, or warn once if that is allowed.

        It is also allowed after a training that met only zeros here, as the first step does behind
        a layer that starts at zero. Then the model is not one that was never trained.
        """
        kind = type(self).__name__
        problem = f'{self.title} was evaluated before its clip was learned'
        remedy = _ZEROS_ALONE if self.met_zeros_alone else _REMEDIES[self._left]
        if not (self.may_be_unlearned or self.met_zeros_alone):
            raise RuntimeError(f'{problem}. {remedy}{_UNREACHED}')
        if kind not in _warned:
            _warned.add(kind)
            warnings.warn(
                f'{problem}, so each batch is quantized with a clip of its own. {remedy}',
                stacklevel=5,
            )

    def _complain_if_alone(self) -> None:
        """Warn once if an optimizer has stepped before the ranks agreed on what this one
        learned.
        """
        if self._learned_at is not None and self.clip_alpha._version != self._learned_at:
            self._learned_at = None
            warn_alone(self)

    @property
    def is_settled(self) -> bool:
        """Whether a clip was learned and is the same on all ranks."""
        if self._known is None and self._learned is None:
            self._remember()
        return self._known is not None

    @property
    def is_learning(self) -> bool:
        """Whether all values count at present, see :meth:`begin_calibration`."""
        return self._seen is not None

    @property
    def met_zeros_alone(self) -> bool:
        """Whether it was used, but only on zeros. Any clip serves those."""
        return int(self.initialized) == ZEROS

    def _remember(self) -> None:
        """Read the buffers once, so that later calls (and traced ones) need not."""
        known = not self.initialized.is_meta and int(self.initialized) in (PIXELS, COEFFICIENTS)
        self._known = bool(self.signed) if known else None

    def _fit_to(self, x: Tensor) -> None:
        """Make room for the clips of ``x``, if there may be several."""
        if self.scales.axes:
            self.fit(prod(x.shape[axis] for axis in self.scales.axes))

    @torch.no_grad()
    def _measure(self, x: Tensor) -> Magnitudes | Clips:
        """Return what can be learned from ``x`` about the clip."""
        values, axes = self.prepare(x.detach()), self.scales.axes
        if not axes:
            return measure(values)
        rows = values.movedim(axes, tuple(range(len(axes)))).reshape(self.clip_alpha.numel(), -1)
        if isinstance(self._seen, Clips) and self._seen.are_of(rows):
            return self._seen  # a weight is the same in every batch of a calibration
        clips = choose_clips(rows, self.calibration, self._steps(self.signed), self.percentile)
        return clips if self._seen is None else clips._replace(rows=rows.clone())

    @torch.no_grad()
    def _choose(self, learned: Magnitudes | Clips) -> tuple[Tensor, Tensor]:
        """Return the clip and signedness that suit what was learned."""
        signed = self.signed
        if isinstance(learned, Magnitudes) and self._sign is None:
            signed = learned.negative.to(signed)
        if self.calibration is None or not learned.largest > 0:
            return self.clip_alpha, signed
        if isinstance(learned, Clips):
            return learned.filled().to(self.clip_alpha.dtype), signed
        clips = [
            choose_clip(learned, self.calibration, steps_of(bits, signed), self.percentile)
            for bits in (WIDTHS if self.scales == WIDTH else (self.bits,))
        ]
        return self.clip_alpha.new_tensor(clips), signed

    def _steps(self, signed: Tensor | bool) -> int:
        """Return the number of steps between zero and the clip."""
        return steps_of(self.bits, signed)

    @torch.compiler.disable
    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Learn clip and signedness from ``x``, and remember that this was done.

        Between :meth:`begin_calibration` and :meth:`end_calibration`, the values of all calls
        count. Zeros alone teach nothing. With several ranks, nothing is stored before
        :func:`mmwcc.quantizers.settle`.

        Args:
            x: Values to be quantized, any shape.
        """
        self._fit_to(x)
        learned = self._measure(x)
        if self._seen is not None:
            learned = self._seen = join(self._seen, learned)
        if learned.largest > 0:
            self._learned, self._known = learned, None
            self._learned_at = self.clip_alpha._version
            if self.alone or not several_ranks():
                self._settle(learned)
            elif self._seen is None and not self.settles_with_model:
                warn_alone(self)
        elif x.numel() and not x.any():
            self.initialized.fill_(ZEROS)

    @torch.no_grad()
    def _settle(self, learned: Magnitudes | Clips) -> None:
        """Store the clip and the signedness that suit these values.

        Raises:
            RuntimeError: If the clip is a view of what FSDP flattened, so that it cannot be
                written.
        """
        if not isinstance(self.clip_alpha, nn.Parameter):
            raise RuntimeError(
                f'{self.title}: clips must be learned before FullyShardedDataParallel flattens '
                'the parameters, got a quantizer that has not learned its clip. Calibrate the '
                'model or load a compressed checkpoint before it is wrapped, or use fully_shard.'
            )
        clip, signed = self._choose(learned)
        self.state_dict()  # makes FSDP2 put the shards in place, or the writes are lost
        if clip is not self.clip_alpha:
            _write(self.clip_alpha, clip)
        self.signed.copy_(signed)
        self.initialized.fill_(self._domain)
        self._learned = None
        self._remember()

    def begin_calibration(self) -> None:
        """Forget what was learned, and learn from all values until :meth:`end_calibration`.

        This holds in training and in evaluation. Each batch is quantized with the clip of all
        values so far. So later layers learn from the values that they will actually get.
        """
        device = self.clip_alpha.device
        self._seen = Clips(torch.zeros(1, device=device)) if self.scales.axes else nothing(device)
        self.initialized.fill_(NOTHING)
        self._learned = self._known = None

    def end_calibration(self) -> None:
        """Keep clip and signedness as they are now."""
        self._seen = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_seen': None}  # a copy does not take part in a calibration


def steps_of(bits: int, signed: Tensor | bool) -> int:
    """Return the number of steps between zero and the clip of a grid."""
    return 2 ** (bits - 1) - 1 if signed else 2**bits - 1


def _write(parameter: Any, value: Tensor) -> None:
    """Write a value into a parameter. If it is sharded, write the part that this rank holds."""
    if hasattr(parameter, 'to_local'):
        from torch.distributed.tensor import DTensor, Replicate

        mesh = parameter.device_mesh
        whole = DTensor.from_local(value, mesh, [Replicate()] * mesh.ndim, run_check=False)
        value, parameter = (
            whole.redistribute(mesh, parameter.placements).to_local(),
            parameter.to_local(),
        )
    parameter.copy_(value)


_OTHER_COMPRESSION = (
    'The checkpoint has another compression: {there} That clip does not fit. Load the checkpoint '
    'with the compression config that it was trained with, or train or calibrate the model first.'
)
_REMEDIES = {
    NOTHING: 'Load a checkpoint of the compressed model, or train or calibrate the model first.',
    PIXELS: _OTHER_COMPRESSION.format(
        there='this layer transforms its input with wavelets (it has a keep_ratio), and there the '
        'clip was learned from pixels.'
    ),
    COEFFICIENTS: _OTHER_COMPRESSION.format(
        there='this layer has no wavelet transform (no keep_ratio), and there the clip was learned '
        'from wavelet coefficients.'
    ),
}
"""What to do about a clip that is missing, by what an unsuitable clip was learned from."""

_ZEROS_ALONE = 'It has met only zeros in training so far. One more training step teaches it a clip.'

_UNREACHED = (
    ' If training does not reach this layer, call mmwcc.compression.allow_dense(model), or set '
    'allow_dense=True in CompressionCheckHook.'
)

_warned: set[str] = set()
