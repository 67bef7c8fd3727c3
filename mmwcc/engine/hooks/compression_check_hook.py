"""Record in each checkpoint how it is compressed, and compare before loading one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner.base_loop import BaseLoop

from mmwcc.checkpoint import Comparison, compare, read_stamp, write_stamp
from mmwcc.compression import advice_for
from mmwcc.model_tree import LayerState, compressed_layers, unwrapped
from mmwcc.quantizers import settle_after_forward
from mmwcc.registry import HOOKS
from mmwcc.utils import refuse_new_start

from .compression_schedule_hook import CompressionScheduleHook

__all__ = ['CompressionCheckHook']

_LISTED = 5


@HOOKS.register_module()
class CompressionCheckHook(Hook):
    """Stamp checkpoints with the compression of the model, and reject those that do not fit.

    mmengine loads checkpoints with ``strict=False``: parameters that do not fit are skipped with a
    line in the log. A model that lacks its quantizers, or has uncalibrated ones, is then trained or
    evaluated without an error. This hook compares checkpoint and model before the weights are
    loaded. Its reaction depends on what the checkpoint is loaded for:

    ====================================================  =======================  ===============  ================
    checkpoint and model                                  training from it         resuming         val, test
    ====================================================  =======================  ===============  ================
    compressed checkpoint, dense model                    error                    error            error
    dense checkpoint, compressed model                    INFO                     error            error
    some layers or quantizers on one side only            WARNING (in checkpoint)  error            error
                                                          or INFO (in model)
    integer layers on one side only                       error                    error            error
    shapes differ in compressed layers                    error                    error            error
    keep_ratio, bits, wavelet, levels, selection differ   INFO                     error            WARNING
    optimizer or schedules not saved, or other schedules  -                        error            -
    ====================================================  =======================  ===============  ================

    A checkpoint may compress prediction layers that ``keep_dense='last'`` keeps dense; checkpoints
    from before this release may do so. The error or warning then gives the ``keep_dense`` that
    restores its network.

    If the runner has a :class:`CompressionScheduleHook`, the recorded state is compared with the
    state that the schedule gives for the recorded moment, whichever of the two hooks runs first.

    Args:
        allow_dense: Whether to accept a checkpoint that lacks some of the model's layers and
            quantizers where that is an error. Defaults to False.
        allow_mismatch: Regular expressions. A parameter whose full name matches one may differ in
            shape, such as a classifier for another number of classes; mmengine then skips it.
            Defaults to ().

    Raises:
        TypeError: If ``allow_dense`` is not a bool, or ``allow_mismatch`` is not a sequence of
            strings.
        RuntimeError: When training starts, if ``efficient_conv_bn_eval`` is set for a model with
            compressed layers.
        RuntimeError: When a checkpoint is loaded, in the cases that the table lists.

    Example:
        >>> default_hooks = dict(compression_check=dict(type='mmwcc.CompressionCheckHook'))
    """

    # Before EMAHook (NORMAL), which removes weights from the checkpoint when a run is resumed.
    priority = 'HIGH'

    def __init__(self, allow_dense: bool = False, allow_mismatch: Sequence[str] = ()) -> None:
        if not isinstance(allow_dense, bool):
            raise TypeError(
                f'CompressionCheckHook: allow_dense must be True or False, got {allow_dense!r}. Use True '
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
        """Reject ``efficient_conv_bn_eval`` before the runner rewrites the model for it.

        Also make the whole model agree on its clips across ranks. The compressed model may be a
        part whose own forward is never called, like the detectors inside mmdet's semi-supervised
        detectors.
        """
        layers = compressed_layers(runner.model)
        settle_after_forward(unwrapped(runner.model))
        if self._trains(runner) and layers and runner.cfg.get('efficient_conv_bn_eval') is not None:
            raise RuntimeError(
                f'CompressionCheckHook: efficient_conv_bn_eval must not be set for a model with '
                f'compressed layers, got {runner.cfg.efficient_conv_bn_eval!r} and {len(layers)} such '
                'layers. It multiplies the weights by the scale of BatchNorm before they are quantized; '
                'remove the key from the config.'
            )

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
        found = compare(checkpoint, runner.model, self._expected(runner, purpose, checkpoint))
        advice = advice_for(runner.model, found.in_checkpoint)
        if advice and purpose != 'train':
            raise RuntimeError(f'CompressionCheckHook: {advice}')
        if not found.layers:
            self._refuse_dense_model(found)
            return
        self._judge_integers(found)
        self._judge_parts(runner, purpose, found, advice)
        self._judge_shapes(found)
        self._judge_states(runner, purpose, found)

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

    @staticmethod
    def _refuse_dense_model(found: Comparison) -> None:
        if not found.in_checkpoint:
            return
        recorded = bool(found.stamp.get('compression'))
        config = ' The config is in checkpoint["meta"]["mmwcc"]["compression"].' if recorded else ''
        raise RuntimeError(
            'CompressionCheckHook: a compressed checkpoint needs a compressed model, got a dense model '
            f'and a checkpoint with {_listed(found.in_checkpoint)} compressed. Loading would drop the '
            "quantizers and the selection. Build the model with type='mmwcc.CompressedModel' and the "
            f'compression the checkpoint was trained with.{config}'
        )

    @staticmethod
    def _judge_integers(found: Comparison) -> None:
        if found.integers_only_in_model:
            raise RuntimeError(
                'CompressionCheckHook: an integer model needs an integer checkpoint, got one without '
                f'integers in {_listed(found.integers_only_in_model)}. Convert it with '
                'tools/deployment/to_integer.py, or leave `integer` out of the compression config.'
            )
        if found.integers_only_in_checkpoint:
            raise RuntimeError(
                'CompressionCheckHook: an integer checkpoint needs an integer model, got one without '
                f'integers in {_listed(found.integers_only_in_checkpoint)}. Set integer=True in the '
                'compression config, or use the config that was written beside the checkpoint.'
            )

    def _judge_parts(self, runner, purpose: str, found: Comparison, advice: str) -> None:
        """Judge differences in which layers are compressed and which quantizers they have."""
        what = 'has them dense or not quantized' if found.in_checkpoint else 'is dense'
        self._report_absent(runner, purpose, found.only_in_model, what)
        if found.only_in_checkpoint:
            text = (
                f'CompressionCheckHook: the model must compress what the checkpoint compresses, got '
                f'{_listed(found.only_in_checkpoint)} in the checkpoint only. '
                + (advice or 'Use the compression config it was trained with.')
            )
            if purpose != 'train':
                raise RuntimeError(text)
            runner.logger.warning(text)

    def _report_absent(self, runner, purpose: str, absent: set[str], what: str) -> None:
        if not absent:
            return
        if purpose == 'train':
            runner.logger.info(
                f'CompressionCheckHook: compression starts in {_listed(absent)}; the checkpoint {what}. '
                'Quantizers are calibrated by the first training batch.'
            )
            return
        text = (
            f'CompressionCheckHook: to {purpose}, the checkpoint must have what the model compresses, got a '
            f'checkpoint that {what}: {_listed(absent)}.'
        )
        if not self.allow_dense:
            raise RuntimeError(
                f'{text} Train the compressed model from it first (load_from with resume=False), or set '
                'allow_dense=True to go on without.'
            )
        runner.logger.warning(text)

    def _judge_shapes(self, found: Comparison) -> None:
        wrong = [
            f'{key}: {theirs} in the checkpoint, {ours} in the model'
            for key, (theirs, ours) in found.shapes.items()
            if not any(re.fullmatch(pattern, key) for pattern in self.allow_mismatch)
        ]
        if wrong:
            raise RuntimeError(
                f'CompressionCheckHook: the shapes of compressed layers must agree with the checkpoint, '
                f'got {_listed(wrong, separator="; ")}. Loading would skip them. Use the config of the '
                'checkpoint, or name them in allow_mismatch to start them anew.'
            )

    @staticmethod
    def _judge_states(runner, purpose: str, found: Comparison) -> None:
        if not found.states:
            return
        differences = [
            f'{name}: {key} {_shown(theirs)} in the checkpoint, {_shown(ours)} in the model'
            for name, key, theirs, ours in found.states
        ]
        text = (
            'CompressionCheckHook: the model must compress as the checkpoint records, got '
            f'{_listed(differences, separator="; ")}.'
        )
        if purpose == 'resume':
            raise RuntimeError(
                f'{text} Resume with the compression config and schedule the run was started with, or '
                'start a new run from the checkpoint (load_from with resume=False).'
            )
        if purpose == 'evaluate':
            runner.logger.warning(f'{text} The result is not that of the trained model.')
        else:
            runner.logger.info(f'{text} Training goes on as the model is configured.')


def _shown(value: Any) -> str:
    return 'absent' if value is None else f'{value:g}' if isinstance(value, float) else str(value)


def _listed(items: Iterable[str], separator: str = ', ') -> str:
    items = list(items) if isinstance(items, list) else sorted(items)
    more = f' and {len(items) - _LISTED} more' if len(items) > _LISTED else ''
    return separator.join(items[:_LISTED]) + more
