"""Post-training calibration: initial clips and BatchNorm statistics from a few batches."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmwcc.model_tree import each_batch, guards_off, lift_guards, undisturbed, unwrapped
from mmwcc.quantizers import CALIBRATIONS, UniformQuantizer, settle

from .run import Forward, run_model

__all__ = [
    'CalibrationReport',
    'batch_statistics',
    'calibrate',
    'learning',
    'reestimate_batch_norm',
]


@dataclass(frozen=True)
class CalibrationReport:
    """The result of a calibration.

    Attributes:
        batches: Number of batches that were run.
        calibrated: Names of the quantizers whose clip was set.
        missed: Names of the quantizers that got no values other than zero, such as those in a head
            that only training uses. They keep the clip that they had, or learn from the first
            training batch.
    """

    batches: int
    calibrated: tuple[str, ...]
    missed: tuple[str, ...]

    def __str__(self) -> str:
        missed = (
            f', {len(self.missed)} got no values ({self.missed[0]}, ...)' if self.missed else ''
        )
        return f'{len(self.calibrated)} clips from {self.batches} batches{missed}'


@contextmanager
def learning(quantizer: UniformQuantizer) -> Iterator[None]:
    """Let a quantizer set its clip from all values that it gets inside the block."""
    quantizer.begin_calibration()
    try:
        yield
    finally:
        quantizer.end_calibration()


@contextmanager
def _evaluable(model: nn.Module) -> Iterator[None]:
    """Allow to evaluate a model, whatever its weights were trained for; for good on success."""
    with guards_off(model):
        yield
    lift_guards(model)


@contextmanager
def _kept_unless_learned(quantizers: Iterable[UniformQuantizer]) -> Iterator[None]:
    """Restore the earlier clips of quantizers that learn nothing inside the block.

    If the block raises, the clips of all quantizers are restored.
    """
    before = {quantizer: copy.deepcopy(quantizer.state_dict()) for quantizer in quantizers}
    failed = True
    try:
        yield
        failed = False
    finally:
        for quantizer, state in before.items():
            if failed or not quantizer.is_settled:
                quantizer.load_state_dict(state)


@contextmanager
def _choosing(
    quantizer: UniformQuantizer, method: str | None, percentile: float | None
) -> Iterator[None]:
    """Let a quantizer choose clips by another method inside the block."""
    own = quantizer.calibration, quantizer.percentile
    quantizer.calibration = own[0] if method is None else method
    quantizer.percentile = own[1] if percentile is None else percentile
    try:
        yield
    finally:
        quantizer.calibration, quantizer.percentile = own


def calibrate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    method: str | None = None,
    percentile: float | None = None,
    again: bool = True,
    forward: Forward = run_model,
) -> CalibrationReport:
    """Set the clips of all quantizers of a model from a few batches.

    Each activation quantizer collects the magnitudes of all values that it gets in one histogram,
    over batches, calls and ranks. From the whole histogram, it takes the clip of least squared
    error (or the percentile). An average of the clips of single batches would be right for none of
    them, and a batch with few values would count as much as one with many. A weight quantizer
    learns from its weights. The model runs in evaluation mode, so nothing else in it changes.

    Quantizers with 32 bits (switched off by a schedule) are left alone. They learn when they are
    switched on.

    Args:
        model: A compressed model.
        batches: A list or data loader of batches for ``forward``; :func:`run_model` says what a
            batch is. With torch.distributed, every rank must have the same number.
        method: 'mse', 'percentile' or 'lsq' for all quantizers. Defaults to None, which uses the
            method that each quantizer was built with.
        percentile: Percentile of magnitudes for 'percentile'. Defaults to None, which uses the one
            that each quantizer was built with.
        again: Whether quantizers that have a clip get a new one. Defaults to True.
        forward: Called with model and batch. Defaults to :func:`run_model`.

    Returns:
        A report of which quantizers have learned.

    Raises:
        TypeError: If batches is a single batch.
        ValueError: If method is unknown, percentile is not in (0, 100], the model has no quantizer
            that is on, there is no batch, or the model cannot run on one.

    Example:
        >>> act = dict(type='mmwcc.LearnedClipActQuantizer', calibration='percentile',
        ...            percentile=100)
        >>> model = nn.Sequential(mmwcc.layers.QuantConv2d(1, 1, 1, act_quant=act))
        >>> batches = [torch.full((1, 1, 2, 2), value) for value in (1.0, 3.0, 2.0)]
        >>> calibrate(model, batches).calibrated
        ('0.act_quant',)
        >>> model[0].act_quant.clip_alpha.item()
        3.0
    """
    _check(method, percentile)
    quantizers = {
        name: quantizer
        for name, quantizer in _quantizers(model).items()
        if again or not quantizer.is_settled
    }
    count = 0
    with ExitStack() as stack:
        stack.enter_context(_evaluable(model))
        if not quantizers:
            return CalibrationReport(0, (), ())
        stack.enter_context(_kept_unless_learned(quantizers.values()))
        stack.enter_context(undisturbed(model))
        for quantizer in quantizers.values():
            stack.enter_context(_choosing(quantizer, method, percentile))
            stack.enter_context(learning(quantizer))
        for batch in each_batch('calibrate', batches):
            forward(model, batch)
            count += 1
        settle(model)
        done = {name: quantizer.is_settled for name, quantizer in quantizers.items()}
    return CalibrationReport(
        count,
        tuple(name for name, learned in done.items() if learned),
        tuple(name for name, learned in done.items() if not learned),
    )


def _check(method: str | None, percentile: float | None) -> None:
    if method is not None and method not in CALIBRATIONS:
        raise ValueError(
            f'calibrate: method must be one of {", ".join(CALIBRATIONS)} or None, got {method!r}. '
            'Use None for what the quantizers were built with.'
        )
    if percentile is not None and not 0 < percentile <= 100:
        raise ValueError(
            f'calibrate: percentile must be in (0, 100], got {percentile}. Use 99.9 to clip one '
            'magnitude in a thousand.'
        )


def _quantizers(model: nn.Module) -> dict[str, UniformQuantizer]:
    """Return the quantizers that are on, by name."""
    found = {
        name: module
        for name, module in unwrapped(model).named_modules()
        if isinstance(module, UniformQuantizer) and module.is_on
    }
    if not found:
        raise ValueError(
            'calibrate: the model must have a quantizer with less than 32 bits, got a '
            f'{type(model).__name__} without one. Compress it first, with weight_quant or '
            'act_quant.'
        )
    return found


@contextmanager
def batch_statistics(model: nn.Module, learn: bool = False) -> Iterator[dict[_BatchNorm, int]]:
    """Let BatchNorm layers in evaluation mode normalize by the statistics of each batch.

    A layer uses its running statistics if its input has a single value per channel, as after global
    pooling of one image.

    Args:
        model: Any model. Put it into evaluation mode first.
        learn: Whether the running statistics become the averages over all batches. Defaults to
            False, which leaves them unchanged.

    Returns:
        The number of batches by which each layer has normalized so far.
    """
    norms = {
        module: (module.momentum, module.training)
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    }
    reached: dict[_BatchNorm, int] = {}

    def switch(norm: _BatchNorm, inputs: tuple) -> None:
        norm.training = inputs[0].numel() > inputs[0].shape[1]
        norm.track_running_stats = learn or not norm.training
        if norm.training:
            reached[norm] = reached.get(norm, 0) + 1
            # The mean weights all batches equally and forgets the value from before.
            norm.momentum = 1 / reached[norm]

    handles = [norm.register_forward_pre_hook(switch) for norm in norms]
    try:
        yield reached
    finally:
        for handle in handles:
            handle.remove()
        for norm, (momentum, training) in norms.items():
            norm.momentum, norm.training, norm.track_running_stats = momentum, training, True


def reestimate_batch_norm(
    model: nn.Module, batches: Iterable[Any], *, forward: Forward = run_model
) -> int:
    """Replace the running statistics of BatchNorm layers by averages over batches.

    Compression changes the input of BatchNorm: coefficients that are not kept take their energy
    with them, so the learned variance is too large. Nothing is trained and no label is read.

    Args:
        model: Any model.
        batches: A list or data loader of batches for ``forward``; :func:`run_model` says what a
            batch is. They must have several images each where the model pools globally.
        forward: Called with model and batch. Defaults to :func:`run_model`.

    Returns:
        The number of layers whose statistics were estimated again.

    Raises:
        TypeError: If batches is a single batch.
        ValueError: If there is no batch, or the model cannot run on one.

    Example:
        >>> norm = nn.BatchNorm2d(1)
        >>> batches = [torch.full((1, 1, 2, 2), value) for value in (1.0, 3.0)]
        >>> reestimate_batch_norm(nn.Sequential(norm), batches)
        1
        >>> norm.running_mean.item()
        2.0
    """
    with (
        _evaluable(model),
        undisturbed(model),
        batch_statistics(model, learn=True) as reached,
    ):
        for batch in each_batch('reestimate_batch_norm', batches):
            forward(model, batch)
    return len(reached)
