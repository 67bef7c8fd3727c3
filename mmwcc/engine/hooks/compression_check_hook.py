"""Checkpoints that say how they are compressed, and loading that compares."""
from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner.base_loop import BaseLoop
from torch import nn

from mmwcc.compressed_config import find_compression
from mmwcc.compression import advice_for
from mmwcc.inference import IntegerLayer
from mmwcc.model_tree import LayerState, compressed_layers, unwrapped
from mmwcc.quantizers import settle_after_forward
from mmwcc.registry import HOOKS, type_name
from mmwcc.utils import refuse_new_start
from mmwcc.version import __version__

from .compression_schedule_hook import CompressionScheduleHook

__all__ = ['CompressionCheckHook']

_QUANTIZER_KEY = re.compile(r'^(?P<layer>.*)\.(?P<role>weight_quant|act_quant)\.(clip_alpha|initialized|signed)$')
_LISTED = 5


@HOOKS.register_module()
class CompressionCheckHook(Hook):
    """Stamp checkpoints with the compression of the model, and refuse those that do not fit.

    mmengine loads checkpoints with ``strict=False``: what does not fit is skipped with a line in the log, and a model
    without its quantizers, or with uncalibrated ones, is trained or evaluated in silence. This hook compares before
    the weights are loaded. What it says depends on what the checkpoint is loaded for:

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

    Where a checkpoint compresses prediction layers that ``keep_dense='last'`` keeps dense, as those
    of version 0.1 may, the error or warning gives the ``keep_dense`` that restores its network.

    Where the runner has a :class:`CompressionScheduleHook`, the recorded state is compared with what the schedule
    gives for the recorded moment, whichever of the two hooks runs first.

    Args:
        allow_dense (bool): Accept layers and quantizers that the checkpoint does not have where that is an error.
            Defaults to False.
        allow_mismatch (Sequence[str]): Regular expressions; a parameter whose full name matches one may differ in
            shape, and is then skipped by mmengine, as a classifier for another number of classes.
            Defaults to ().

    Raises:
        TypeError: If ``allow_dense`` is not a bool, or ``allow_mismatch`` not a sequence of strings.
        RuntimeError: While training starts, if ``efficient_conv_bn_eval`` is set for a model with compressed layers;
            while a checkpoint is loaded, as in the table.

    Example:
        >>> default_hooks = dict(compression_check=dict(type='mmwcc.CompressionCheckHook'))
    """

    # Before EMAHook (NORMAL), which on resuming already takes weights out of the checkpoint.
    priority = 'HIGH'

    def __init__(self, allow_dense: bool = False, allow_mismatch: Sequence[str] = ()) -> None:
        if not isinstance(allow_dense, bool):
            raise TypeError(f'CompressionCheckHook: allow_dense must be True or False, got {allow_dense!r}. Use True '
                            'to evaluate dense weights in a compressed model.')
        if isinstance(allow_mismatch, str) or not all(isinstance(pattern, str) for pattern in allow_mismatch):
            raise TypeError('CompressionCheckHook: allow_mismatch must be a list of regular expressions, got '
                            f"{allow_mismatch!r}. Did you mean [r'decode_head\\.conv_seg\\..*']?")
        self.allow_dense = allow_dense
        self.allow_mismatch = tuple(allow_mismatch)
        self._trained = False

    def before_run(self, runner) -> None:
        """Refuse ``efficient_conv_bn_eval``, before the runner rewrites the model for it.

        And let the whole model settle its clips over ranks: what was compressed may be a part of it
        whose own forward is never called, as the detectors inside mmdet's semi-supervised ones.
        """
        layers = compressed_layers(runner.model)
        settle_after_forward(unwrapped(runner.model))
        if self._trains(runner) and layers and runner.cfg.get('efficient_conv_bn_eval') is not None:
            raise RuntimeError(f'CompressionCheckHook: efficient_conv_bn_eval must not be set for a model with '
                               f'compressed layers, got {runner.cfg.efficient_conv_bn_eval!r} and {len(layers)} such '
                               'layers. It multiplies the weights by the scale of BatchNorm before they are quantized; '
                               'remove the key from the config.')

    def after_train(self, runner) -> None:
        """Note that a checkpoint loaded from now on is loaded for evaluation."""
        self._trained = True

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Write ``checkpoint['meta']['mmwcc']``, made of plain data only."""
        meta = checkpoint.setdefault('meta', {})
        stamp = meta.setdefault('mmwcc', {})
        stamp.update(
            version=__version__,
            compression=_compression_config(runner),
            layers={name: LayerState.of(layer).to_dict() for name, layer in compressed_layers(runner.model).items()})
        # CompressionScheduleHook says which iteration and epoch the state belongs to, before or after this.
        stamp.setdefault('iter', meta.get('iter'))
        stamp.setdefault('epoch', meta.get('epoch'))

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare the checkpoint with the model that is about to load it."""
        refuse_new_start('CompressionCheckHook', runner, checkpoint)
        layers = compressed_layers(runner.model)
        weights = {re.sub(r'^module\.', '', key): value
                   for key, value in checkpoint.get('state_dict', checkpoint).items()}
        stamp = (checkpoint.get('meta') or {}).get('mmwcc') or {}
        recorded = stamp.get('layers')
        integers = _integers_of_weights(weights)
        theirs = _quantizers_of_weights(weights) | integers | set(recorded or ())
        purpose = self._purpose(runner)
        advice = advice_for(runner.model, theirs)
        if advice and purpose != 'train':
            raise RuntimeError(f'CompressionCheckHook: {advice}')
        if not layers:
            self._refuse_dense_model(theirs, stamp)
            return
        self._compare_integers(layers, integers)
        self._compare_parts(runner, purpose, layers, theirs, recorded is not None, advice)
        self._compare_shapes(layers, weights)
        self._compare_states(runner, purpose, layers, recorded or {}, checkpoint)

    def _trains(self, runner) -> bool:
        return isinstance(runner._train_loop, BaseLoop) and not self._trained

    def _purpose(self, runner) -> str:
        if not self._trains(runner):
            return 'evaluate'
        return 'resume' if runner._resume else 'train'

    @staticmethod
    def _refuse_dense_model(theirs: set[str], stamp: Mapping[str, Any]) -> None:
        if not theirs:
            return
        config = ' The config is in checkpoint["meta"]["mmwcc"]["compression"].' if stamp.get('compression') else ''
        raise RuntimeError(f'CompressionCheckHook: a compressed checkpoint needs a compressed model, got a dense model '
                           f'and a checkpoint with {_listed(theirs)} compressed. Loading would drop the quantizers and '
                           "the selection. Build the model with type='mmwcc.CompressedModel' and the compression the "
                           f'checkpoint was trained with.{config}')

    @staticmethod
    def _compare_integers(layers: Mapping[str, nn.Module], theirs: set[str]) -> None:
        ours = {name for name, layer in layers.items() if isinstance(layer, IntegerLayer)}
        if ours - theirs:
            raise RuntimeError('CompressionCheckHook: an integer model needs an integer checkpoint, got one without '
                               f'integers in {_listed(ours - theirs)}. Convert it with '
                               'tools/deployment/to_integer.py, or leave `integer` out of the compression config.')
        if theirs - ours:
            raise RuntimeError('CompressionCheckHook: an integer checkpoint needs an integer model, got one without '
                               f'integers in {_listed(theirs - ours)}. Set integer=True in the compression config, or '
                               'use the config that was written beside the checkpoint.')

    def _compare_parts(self, runner, purpose: str, layers: Mapping[str, nn.Module],
                       theirs: set[str], stamped: bool, advice: str) -> None:
        """Compare which layers are compressed and which of them have which quantizer."""
        # A checkpoint without a stamp still shows its quantizers, but not which unquantized layers were compressed.
        ours = _quantizers_of_layers(layers) | (set(layers) if stamped or not theirs else set())
        if not theirs:
            self._report_absent(runner, purpose, ours & set(layers), 'is dense')
            return
        self._report_absent(runner, purpose, ours - theirs, 'has them dense or not quantized')
        lost = theirs - ours
        if lost:
            text = (f'CompressionCheckHook: the model must compress what the checkpoint compresses, got '
                    f'{_listed(lost)} in the checkpoint only. '
                    + (advice or 'Use the compression config it was trained with.'))
            if purpose != 'train':
                raise RuntimeError(text)
            runner.logger.warning(text)

    def _report_absent(self, runner, purpose: str, absent: set[str], what: str) -> None:
        if not absent:
            return
        if purpose == 'train':
            runner.logger.info(f'CompressionCheckHook: compression starts in {_listed(absent)}; the checkpoint {what}. '
                               'Quantizers are calibrated by the first training batch.')
            return
        text = (f'CompressionCheckHook: to {purpose}, the checkpoint must have what the model compresses, got a '
                f'checkpoint that {what}: {_listed(absent)}.')
        if not self.allow_dense:
            raise RuntimeError(f'{text} Train the compressed model from it first (load_from with resume=False), or set '
                               'allow_dense=True to go on without.')
        runner.logger.warning(text)

    def _compare_shapes(self, layers: Mapping[str, nn.Module], weights: Mapping[str, Any]) -> None:
        wrong = []
        for name, layer in layers.items():
            for key, ours in layer.state_dict(prefix=f'{name}.').items():
                theirs = tuple(getattr(weights.get(key), 'shape', ours.shape))
                if key == f'{name}.weight' and len(theirs) == 3:
                    theirs += (1,)  # kernels of nn.Conv1d, which the layers load
                if key.endswith('.clip_alpha') and theirs == ():
                    theirs = (1,)  # clips of 0.1, which the quantizers load
                if theirs != tuple(ours.shape) and not any(re.fullmatch(p, key) for p in self.allow_mismatch):
                    wrong.append(f'{key}: {theirs} in the checkpoint, {tuple(ours.shape)} in the model')
        if wrong:
            raise RuntimeError(f'CompressionCheckHook: the shapes of compressed layers must agree with the checkpoint, '
                               f'got {_listed(wrong, separator="; ")}. Loading would skip them. Use the config of the '
                               'checkpoint, or name them in allow_mismatch to start them anew.')

    @staticmethod
    def _compare_states(runner, purpose: str, layers: Mapping[str, nn.Module],
                        recorded: Mapping[str, Mapping[str, Any]], checkpoint: dict) -> None:
        expected = {name: LayerState.of(layer).to_dict() for name, layer in layers.items()}
        schedule = next((hook for hook in runner.hooks if isinstance(hook, CompressionScheduleHook)), None)
        if schedule is not None and recorded:
            # A run that is resumed under a schedule it did not have so far is compared with that schedule too.
            moment = schedule.recorded_moment(checkpoint, scheduled_only=purpose != 'resume')
            if moment is not None:
                expected = {name: state.to_dict()
                            for name, state in schedule.states_at(runner, moment).items()}
        differences = [
            f'{name}: {key} {_shown(recorded[name].get(key))} in the checkpoint, {_shown(ours.get(key))} in the model'
            for name, ours in expected.items() if name in recorded
            for key in [*ours, *(key for key in recorded[name] if key not in ours)]
            if not _same(recorded[name].get(key), ours.get(key))]
        if not differences:
            return
        text = ('CompressionCheckHook: the model must compress as the checkpoint records, got '
                f'{_listed(differences, separator="; ")}.')
        if purpose == 'resume':
            raise RuntimeError(f'{text} Resume with the compression config and schedule the run was started with, or '
                               'start a new run from the checkpoint (load_from with resume=False).')
        if purpose == 'evaluate':
            runner.logger.warning(f'{text} The result is not that of the trained model.')
        else:
            runner.logger.info(f'{text} Training goes on as the model is configured.')


def _quantizers_of_weights(weights: Iterable[str]) -> set[str]:
    """Return the names of quantizers that have weights, and of their layers."""
    matches = [match for match in map(_QUANTIZER_KEY.match, weights) if match]
    return {name for match in matches for name in (match['layer'], f'{match["layer"]}.{match["role"]}')}


def _integers_of_weights(weights: Mapping[str, Any]) -> set[str]:
    """Return the names of the integer layers that have weights."""
    names = {key.removesuffix('.grid') for key in weights if key.endswith('.grid')}
    return {name for name in names if f'{name}.scale' in weights and f'{name}.step' in weights}


def _quantizers_of_layers(layers: Mapping[str, nn.Module]) -> set[str]:
    weights = {key: value for name, layer in layers.items() for key, value in
               layer.state_dict(prefix=f'{name}.').items()}
    return _quantizers_of_weights(weights) | _integers_of_weights(weights)


def _compression_config(runner) -> Any:
    model = runner.cfg.get('model')
    return _plain(find_compression(model)) if isinstance(model, Mapping) else None


def _plain(value: Any) -> Any:
    """Return config data as what ``torch.load(weights_only=True)`` reads."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    return value if value is None or type(value) in (bool, int, float, str) else type_name(value)


def _same(one: Any, other: Any) -> bool:
    # Smooth schedules call cos and pow, whose last bit differs between machines.
    return math.isclose(one, other, rel_tol=1e-9) if {type(one), type(other)} <= {int, float} else one == other


def _shown(value: Any) -> str:
    return 'absent' if value is None else f'{value:g}' if isinstance(value, float) else str(value)


def _listed(items: Iterable[str], separator: str = ', ') -> str:
    items = list(items) if isinstance(items, list) else sorted(items)
    more = f' and {len(items) - _LISTED} more' if len(items) > _LISTED else ''
    return separator.join(items[:_LISTED]) + more
