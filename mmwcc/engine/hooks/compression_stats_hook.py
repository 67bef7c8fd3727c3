"""Record what compression removes in each layer, during training and validation."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner.base_loop import BaseLoop
from torch import nn

from mmwcc.diagnostics import (
    GROUPINGS,
    TRAINING_PREFIX,
    VALIDATION_PREFIX,
    LayerStats,
    ScalarName,
    group_of,
    group_scalars,
)
from mmwcc.layers import CompressedLayerMixin
from mmwcc.model_tree import named_layers, names_by_layer, unwrapped
from mmwcc.registry import HOOKS

__all__ = ['CompressionStatsHook']

_WORST: dict[str, tuple[str, Callable]] = dict(
    energy_kept=('least', min),
    act_clipped=('most', max),
    weight_clipped=('most', max),
    act_sqnr=('least', min),
    weight_sqnr=('least', min),
)


@HOOKS.register_module()
class CompressionStatsHook(Hook):
    """Record how much of its input each compressed layer keeps, and the error of quantization.

    The statistics are those of :class:`mmwcc.diagnostics.layer_stats.LayerStats`: ``energy_kept``,
    ``act_clip_alpha``, ``act_clipped``, ``act_sqnr``, ``weight_clip_alpha``, ``weight_clipped`` and
    ``weight_sqnr``, as far as a layer has them. Their mean, minimum and maximum over each group of
    layers go straight to the visualizer and all its backends, as the scalars
    ``compression/<statistic>/<group>/mean``, ``.../min`` and ``.../max`` during training, and as
    ``compression_val/...`` during validation. The log gets one line with the mean of each statistic
    over all layers, and the layer where it is worst.

    The hook observes layers through forward hooks, which exist only during the measured iterations.
    All other iterations run as they would without it. Statistics cover the batches of rank 0, and
    no rank waits for another.

    Args:
        interval: Number of training iterations between two measurements. Defaults to 100.
        layers: Regular expressions. Only layers whose whole qualified name matches one are
            measured. Defaults to None, all compressed layers.
        val_batches: Number of batches of each validation that are measured together; 0 for none.
            Defaults to 4.
        group_by: What the groups are: 'kind' for layers of the same class; 'stage' for the stages
            of the backbone, the neck, the head and so on; or 'layer' for every layer by itself, as
            the scalar ``compression/<statistic>/<layer>``. Defaults to 'kind'.

    Raises:
        TypeError: If ``layers`` is not a sequence of strings.
        ValueError: If ``interval`` is not a positive integer, ``val_batches`` is negative or not an
            integer, or ``group_by`` is unknown.
        ValueError: When training or validation starts, if no layer can be measured or a pattern
            matches none.

    Note:
        Quantizers that have not learned their clip are left out. The hook does not see layers that
        do not run as modules, as in a graph of ``torch.compile``. It warns once if nothing was
        measured at all.

    Example:
        >>> stats = dict(type='mmwcc.CompressionStatsHook', interval=200)
        >>> default_hooks = dict(compression_stats=stats)
    """

    # Before BenchmarkHook, which copies the model including its forward hooks.
    priority = 'NORMAL'

    def __init__(
        self,
        interval: int = 100,
        layers: Sequence[str] | None = None,
        val_batches: int = 4,
        group_by: str = 'kind',
    ) -> None:
        _check_count('interval', interval, 1, 100)
        _check_count('val_batches', val_batches, 0, 4)
        if group_by not in GROUPINGS:
            raise ValueError(
                f'CompressionStatsHook: group_by must be one of {", ".join(GROUPINGS)}, got '
                f"{group_by!r}. Use 'layer' to record every layer."
            )
        if layers is not None and (
            isinstance(layers, str) or not all(isinstance(each, str) for each in layers)
        ):
            raise TypeError(
                'CompressionStatsHook: layers must be a list of regular expressions, got '
                f"{layers!r}. Did you mean [r'backbone\\..*']?"
            )
        self.interval, self.val_batches = interval, val_batches
        self.group_by = group_by
        self.patterns = None if layers is None else tuple(layers)
        self._layers: dict[str, nn.Module] = {}
        self._stats: dict[str, LayerStats] = {}
        self._handles: list = []
        self._warned = False

    def before_train(self, runner) -> None:
        """Choose the layers to measure."""
        self._choose(runner)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Start observing, if this iteration is measured."""
        if is_main_process() and self.every_n_train_iters(runner, self.interval):
            self._watch()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Report the measurements."""
        if self._handles:
            self._unwatch()
            self._report(runner, TRAINING_PREFIX, runner.iter + 1)

    def before_val(self, runner) -> None:
        """Choose the layers to measure, for a validation without training."""
        self._choose(runner)

    def before_val_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Start observing, in the first batches."""
        if is_main_process() and batch_idx < self.val_batches:
            self._watch()

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Stop observing."""
        self._unwatch()

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Report the measurements over all observed batches."""
        if is_main_process() and self.val_batches:
            # Without a training loop, reading runner.iter would build one, together with its
            # dataset.
            trains = isinstance(runner._train_loop, BaseLoop)
            self._report(runner, VALIDATION_PREFIX, runner.iter if trains else 0)

    def _choose(self, runner) -> None:
        if self._layers:
            return
        # All names of each layer, of which shared ones have several. The first stands for all.
        layers = names_by_layer(named_layers(unwrapped(runner.model), CompressedLayerMixin))
        if not layers:
            raise ValueError(
                'CompressionStatsHook: the model must have compressed layers, got none that '
                'compute in '
                "floating point. Build it with type='mmwcc.CompressedModel', or leave the hook out."
            )
        for pattern in self.patterns or ():
            if not any(_matches(pattern, names) for names in layers.values()):
                raise ValueError(
                    f'CompressionStatsHook: an entry of layers must match a whole name of a '
                    f'compressed layer, got {pattern!r}. They are '
                    f'{", ".join(sum(layers.values(), []))}.'
                )
        self._layers = {
            names[0]: layer
            for layer, names in layers.items()
            if self.patterns is None or any(_matches(each, names) for each in self.patterns)
        }

    def _watch(self) -> None:
        for name, layer in self._layers.items():
            # Observe after the forward pass, in which the first batch calibrates the quantizers.
            self._handles.append(layer.register_forward_hook(self._observer(name)))

    def _observer(self, name: str) -> Callable:
        stats = self._stats.setdefault(name, LayerStats())

        def observe(layer: nn.Module, inputs: tuple, output) -> None:
            stats.update(layer, inputs[0])

        return observe

    def _unwatch(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _report(self, runner, prefix: str, step: int) -> None:
        """Send the statistics to the visualizer and the log, and reset them."""
        measured = {name: stats.compute() for name, stats in self._stats.items()}
        self._stats.clear()
        scalars = self._scalars(prefix, measured)
        if scalars:
            runner.visualizer.add_scalars(scalars, step=step)
            where = 'iter' if prefix == TRAINING_PREFIX else 'validation after iter'
            runner.logger.info(f'compression stats at {where} {step}: {_summary(measured)}')
        elif not self._warned:
            self._warned = True
            runner.logger.warning(
                f'CompressionStatsHook: nothing was measured in {len(self._layers)} layers at iter '
                f'{step}: none of them selects, or has a quantizer that is on and has learned its '
                'clip, or they did not run as modules, as in a graph of torch.compile.'
            )

    def _scalars(self, prefix: str, measured: dict[str, dict[str, float]]) -> dict[str, float]:
        if self.group_by == 'layer':
            return {
                str(ScalarName(prefix, statistic, name, None)): value
                for name, values in measured.items()
                for statistic, value in values.items()
            }
        groups = {
            name: group_of(name, type(layer).__name__, self.group_by)
            for name, layer in self._layers.items()
        }
        return group_scalars(prefix, measured, groups)


def _check_count(name: str, value: int, least: int, usual: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
            f'CompressionStatsHook: {name} must be an integer of at least {least}, got {value!r}. '
            f'Use {name}={usual}.'
        )


def _summary(measured: dict[str, dict[str, float]]) -> str:
    parts = []
    for statistic, (word, worst) in _WORST.items():
        values = {
            name: values[statistic] for name, values in measured.items() if statistic in values
        }
        if values:
            name = worst(values, key=values.get)
            unit = ' dB' if statistic.endswith('sqnr') else ''
            parts.append(
                f'{statistic} {sum(values.values()) / len(values):.4g}{unit} '
                f'({word} {values[name]:.4g} in {name})'
            )
    return ', '.join(parts)


def _matches(pattern: str, names: Sequence[str]) -> bool:
    return any(re.fullmatch(pattern, name) for name in names)
