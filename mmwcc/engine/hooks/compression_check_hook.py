"""Record in each checkpoint how it is compressed, and compare before loading one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from logging import ERROR, INFO, WARNING
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner.base_loop import BaseLoop
from torch import nn

from mmwcc.checkpoint import mark_judged, read_stamp, recorded_layers, write_stamp
from mmwcc.compressed_config import is_compressed
from mmwcc.compression import (
    Comparison,
    advice_for,
    allow_dense,
    compare,
    dense_model_error,
    integer_mismatch,
    state_differences,
    what_it_lacks,
)
from mmwcc.messages import some_of
from mmwcc.model_tree import LayerState, compressed_layers, prediction_layers, unwrapped
from mmwcc.quantizers import settle_after_forward
from mmwcc.registry import HOOKS
from mmwcc.utils import nothing_resumed, refuse_new_start, refuse_occupied_work_dir, resume_hint

from .compression_schedule_hook import CompressionScheduleHook

__all__ = ['CompressionCheckHook', 'add_check']


def add_check(runner: Any) -> None:
    """Give a runner of a compressed model a :class:`CompressionCheckHook`, unless it has one.

    mmwcc calls this for every runner (see :mod:`mmwcc.compat`).
    """
    model = runner.model  # a config, if the runner builds its model later
    if isinstance(model, nn.Module):
        compressed = bool(compressed_layers(model))
    else:
        compressed = isinstance(model, Mapping) and is_compressed(model)
    if compressed and not any(isinstance(hook, CompressionCheckHook) for hook in runner.hooks):
        runner.register_hook(CompressionCheckHook())


@HOOKS.register_module()
class CompressionCheckHook(Hook):
    """Stamp checkpoints with the compression of the model, and reject those that do not fit.

    mmengine loads checkpoints with ``strict=False``: parameters that do not fit are skipped with a
    line in the log. A model that lacks its quantizers, or has uncalibrated ones, is then trained or
    evaluated without an error. This hook compares checkpoint and model before the weights are
    loaded. Every run of a compressed model has it, so a config names it only to set an argument.
    Its reaction depends on what the checkpoint is loaded for:

    =========================================  =======================  ========  =========
    checkpoint and model                       training from it         resuming  val, test
    =========================================  =======================  ========  =========
    compressed checkpoint, dense model         error                    error     error
    dense checkpoint, compressed model         INFO                     error     error
    some layers or quantizers on one side      WARNING (in checkpoint)  error     error
                                               or INFO (in model)
    integer layers on one side                 error                    error     error
    shapes differ in compressed layers         error (but not in        error     error
                                               prediction layers)
    keep_ratio, bits, wavelet, levels or       INFO                     error     WARNING
    selection differ
    optimizer or schedules not saved, or       -                        error     -
    other schedules
    =========================================  =======================  ========  =========

    A checkpoint may compress prediction layers that ``keep_dense='last'`` keeps dense; checkpoints
    from before this release may do so. The error or warning then gives the ``keep_dense`` that
    restores its network.

    Training in a work folder whose latest checkpoint is that of a dense model, or of another config
    with another compression, is an error too: the run would overwrite it.

    A run that is told to resume and finds nothing to resume starts anew, with a warning.

    If the runner has a :class:`CompressionScheduleHook`, the recorded state is compared with the
    state that the schedule gives for the recorded moment, whichever of the two hooks runs first.

    Args:
        allow_dense: Whether to accept a checkpoint that lacks some of the model's layers and
            quantizers where that is an error, or no checkpoint at all. Defaults to False.
        allow_mismatch: Regular expressions. A parameter whose full name matches one may differ in
            shape, such as a classifier for another number of classes; mmengine then skips it.
            Defaults to ().

    Raises:
        TypeError: If ``allow_dense`` is not a bool, or ``allow_mismatch`` is not a sequence of
            strings.
        RuntimeError: When training starts, if ``efficient_conv_bn_eval`` is set for a model with
            compressed layers, or the work folder holds the checkpoint of another model.
        RuntimeError: When a checkpoint is loaded, in the cases that the table lists.

    Example:
        >>> default_hooks = dict(compression_check=dict(type='mmwcc.CompressionCheckHook'))
    """

    # Before EMAHook (NORMAL), which removes weights from the checkpoint when a run is resumed.
    priority = 'HIGH'

    def __init__(self, allow_dense: bool = False, allow_mismatch: Sequence[str] = ()) -> None:
        if not isinstance(allow_dense, bool):
            raise TypeError(
                f'CompressionCheckHook: allow_dense must be True or False, got {allow_dense!r}. '
                'Use True '
                'to evaluate dense weights in a compressed model.'
            )
        if isinstance(allow_mismatch, str) or not all(
            isinstance(pattern, str) for pattern in allow_mismatch
        ):
            raise TypeError(
                'CompressionCheckHook: allow_mismatch must be a list of regular expressions, got '
                f"{allow_mismatch!r}. Did you mean [r'decode_head\\.conv_seg\\..*']?"
            )
        self.allow_dense = allow_dense
        self.allow_mismatch = tuple(allow_mismatch)
        self._trained = False

    def before_run(self, runner) -> None:
        """Check what training would spoil before anything has been trained.

        Reject ``efficient_conv_bn_eval`` before the runner rewrites the model for it, and a work
        folder that belongs to another model.

        Also make the whole model agree on its clips across ranks. The compressed model may be a
        part whose own forward is never called, like the detectors inside mmdet's semi-supervised
        detectors.
        """
        layers = compressed_layers(runner.model)
        settle_after_forward(unwrapped(runner.model))
        if self.allow_dense:
            allow_dense(runner.model)
        if not (self._trains(runner) and layers):
            return
        if runner.cfg.get('efficient_conv_bn_eval') is not None:
            raise RuntimeError(
                f'CompressionCheckHook: efficient_conv_bn_eval must not be set for a model with '
                f'compressed layers, got {runner.cfg.efficient_conv_bn_eval!r} and {len(layers)} '
                'such layers. It multiplies the weights by the scale of BatchNorm before they are '
                'quantized; '
                'remove the key from the config.'
            )
        refuse_occupied_work_dir('CompressionCheckHook', runner)

    def before_train(self, runner) -> None:
        """Let validations of a training run reach layers that its training does not.

        Also warn where a run was to be resumed and starts anew.
        """
        allow_dense(runner.model)
        problem = nothing_resumed(runner) if compressed_layers(runner.model) else ''
        if problem:
            runner.logger.warning(f'CompressionCheckHook: {problem}')

    def after_train(self, runner) -> None:
        """Remember that any checkpoint loaded from now on is loaded for evaluation."""
        self._trained = True

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Write ``checkpoint['meta']['mmwcc']``, see :mod:`mmwcc.checkpoint`."""
        write_stamp(checkpoint, runner.model, runner.cfg)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare the checkpoint with the model that is about to load it."""
        refuse_new_start('CompressionCheckHook', runner, checkpoint)
        purpose = self._purpose(runner)
        found = compare(
            checkpoint.get('state_dict', checkpoint),
            runner.model,
            recorded_layers(checkpoint),
            self._expected(runner, purpose, checkpoint),
        )
        if not found.layers:
            _refuse_dense_model(found, read_stamp(checkpoint))
            return
        for level, text in self._findings(runner.model, purpose, found):
            if level == ERROR:
                hint = resume_hint(runner) if purpose == 'resume' else ''
                raise RuntimeError(f'CompressionCheckHook: {hint}{text}')
            runner.logger.log(level, f'CompressionCheckHook: {text}')
        mark_judged(checkpoint)

    def _trains(self, runner) -> bool:
        return isinstance(runner._train_loop, BaseLoop) and not self._trained

    def _purpose(self, runner) -> str:
        if not self._trains(runner):
            return 'evaluate'
        return 'resume' if runner._resume else 'train'

    @staticmethod
    def _expected(
        runner, purpose: str, checkpoint: Mapping[str, Any]
    ) -> dict[str, LayerState] | None:
        """Return the layer states that a schedule gives for the checkpoint's moment, or None."""
        schedule = CompressionScheduleHook.of(runner)
        if schedule is None or not read_stamp(checkpoint).get('layers'):
            return None
        # When a run is resumed, a checkpoint from a run without a schedule is also compared with
        # the new schedule.
        moment = schedule.recorded_moment(checkpoint, scheduled_only=purpose != 'resume')
        return None if moment is None else schedule.states_at(runner, moment)

    def _findings(
        self, model: nn.Module, purpose: str, found: Comparison
    ) -> Iterator[tuple[int, str]]:
        """Yield what differs, most important first, with the level at which to report it."""
        advice = advice_for(model, found.in_checkpoint)
        if advice and purpose != 'train':
            yield ERROR, advice
        mismatch = integer_mismatch(found)
        if mismatch:
            yield ERROR, mismatch
        if found.only_in_model:
            yield self._absent(purpose, found)
        if found.only_in_checkpoint:
            remedy = advice or 'Use the compression config it was trained with.'
            yield (
                WARNING if purpose == 'train' else ERROR,
                'the model must compress what the checkpoint compresses, got '
                f'{some_of(found.only_in_checkpoint)} in the checkpoint only. {remedy}',
            )
        # Training may start from a network with other classes.
        free = prediction_layers(unwrapped(model)) if purpose == 'train' else set()
        wrong = self._different_shapes(found, free)
        if wrong:
            yield (
                ERROR,
                'the shapes of compressed layers must agree with the checkpoint, got '
                f'{some_of(wrong, separator="; ")}. Loading would skip them. Use the config of the '
                'checkpoint, or name them in allow_mismatch to start them anew.',
            )
        if found.states:
            level, consequence = _OTHER_STATES[purpose]
            yield level, f'{state_differences(found)} {consequence}'

    def _absent(self, purpose: str, found: Comparison) -> tuple[int, str]:
        """Report what the model compresses and the checkpoint does not."""
        what = what_it_lacks(found)
        names = some_of(found.only_in_model)
        if purpose == 'train':
            return INFO, (
                f'compression starts in {names}; the checkpoint {what}. Quantizers are calibrated '
                'by the first training batch.'
            )
        text = (
            f'to {purpose}, the checkpoint must have what the model compresses, got a checkpoint '
            f'that {what}: {names}.'
        )
        if self.allow_dense:
            return WARNING, text
        return ERROR, (
            f'{text} Train the compressed model from it first (load_from with resume=False), or '
            'calibrate it (tools/analysis_tools/calibrate.py). To go on without, set '
            'allow_dense=True in this hook.'
        )

    def _different_shapes(self, found: Comparison, free: set[str]) -> list[str]:
        """Describe parameters whose shapes differ, apart from those of layers that may differ."""
        return [
            f'{key}: {theirs} in the checkpoint, {ours} in the model'
            for key, (theirs, ours) in found.shapes.items()
            if not any(key.startswith(f'{name}.') for name in free)
            and not any(re.fullmatch(pattern, key) for pattern in self.allow_mismatch)
        ]


_OTHER_STATES = dict(
    train=(INFO, 'Training goes on as the model is configured.'),
    evaluate=(WARNING, 'The result is not that of the trained model.'),
    resume=(
        ERROR,
        'Resume with the compression config and schedule the run was started with, or start a new '
        'run from the checkpoint (load_from with resume=False).',
    ),
)


def _refuse_dense_model(found: Comparison, stamp: Mapping[str, Any]) -> None:
    if not found.in_checkpoint:
        return
    recorded = bool(stamp.get('compression'))
    config = ' The config is in checkpoint["meta"]["mmwcc"]["compression"].' if recorded else ''
    raise RuntimeError(f'CompressionCheckHook: {dense_model_error(found.in_checkpoint)}{config}')
