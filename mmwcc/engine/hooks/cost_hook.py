"""Report the cost of a model in training: in the log, in the visualizer and in checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner.base_loop import BaseLoop

from mmwcc.checkpoint import extend_stamp
from mmwcc.cost import CostReport, check_convention, count_cost
from mmwcc.model_tree import LayerState, compressed_layers
from mmwcc.registry import HOOKS

from .compression_schedule_hook import CompressionScheduleHook

__all__ = ['CostHook']

_SCALARS = ('macs', 'total_bops', 'transform_bops', 'weight_bytes', 'act_bytes')
# A smooth schedule may change the cost at every iteration. Only changes of this relative size are
# logged.
_LOGGED_CHANGE = 0.05


@HOOKS.register_module()
class CostHook(Hook):
    """Log the cost of the model, at the start and whenever a compression schedule changes it.

    The model runs once on zeros at the start of training, of a test, or of a validation outside of
    training (:func:`mmwcc.cost.count_cost`). Later costs are computed from bits and keep ratios
    alone. At the start, the log gets the table of all layers; each change adds one line. MACs, BOPs
    and bytes go to the visualizer as ``cost/macs``, ``cost/total_bops``, ``cost/transform_bops``,
    ``cost/weight_bytes`` and ``cost/act_bytes``. The totals go into checkpoints as
    ``checkpoint['meta']['mmwcc']['cost']``.

    Args:
        input_shape: (height, width) of an image as the network sees it, or (channels, height,
            width).
        convention: 'exact' or 'paper', see :func:`mmwcc.cost.count_cost`. Defaults to 'exact'.
        table: Whether to log the table of all layers at the start, rather than just the totals.
            Defaults to True.

    Raises:
        TypeError: If input_shape does not consist of integers, or table is not a bool.
        ValueError: If convention is unknown.
        ValueError: At the start, if the model cannot run on such an input.

    Example:
        >>> default_hooks = dict(cost=dict(type='mmwcc.CostHook', input_shape=(512, 1024)))
    """

    # After CompressionScheduleHook, which sets the bits and keep ratios to count.
    priority = 'NORMAL'

    def __init__(
        self, input_shape: Sequence[int], convention: str = 'exact', table: bool = True
    ) -> None:
        if (
            not isinstance(input_shape, Sequence)
            or not input_shape
            or not all(isinstance(size, int) and not isinstance(size, bool) for size in input_shape)
        ):
            raise TypeError(
                f'CostHook: input_shape must be a sequence of integers, got {input_shape!r}. Use '
                '(height, width).'
            )
        if not isinstance(table, bool):
            raise TypeError(
                f'CostHook: table must be True or False, got {table!r}. Use False for the totals '
                f'only.'
            )
        check_convention('CostHook', convention)
        self.input_shape, self.convention, self.table = tuple(input_shape), convention, table
        self.report: CostReport | None = None
        self._schedule: CompressionScheduleHook | None = None
        self._values: dict[str, float] = {}
        self._logged = 0.0

    def before_train(self, runner) -> None:
        """Count and log the cost."""
        self._schedule = CompressionScheduleHook.of(runner)
        self._values = self._scheduled(runner)
        self._start(runner)

    def before_val(self, runner) -> None:
        """Count and log the cost, unless the validation is part of training."""
        if not isinstance(runner._train_loop, BaseLoop):
            self._start(runner)

    def before_test(self, runner) -> None:
        """Count and log the cost."""
        self._start(runner)

    def before_train_epoch(self, runner) -> None:
        """Update the cost if a schedule has changed it."""
        self._follow(runner)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Update the cost if a schedule has changed it."""
        self._follow(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the totals, as plain data, to the stamp of :class:`CompressionCheckHook`."""
        if self.report is not None:
            everything = self.report.to_dict()
            cost = {
                key: everything[key] for key in ('convention', 'input_shape', 'total', 'by_kind')
            }
            extend_stamp(checkpoint, dict(cost=cost))

    def _scheduled(self, runner) -> dict[str, float]:
        if self._schedule is None:
            return {}
        return self._schedule.values_at(
            int(runner.epoch if self._schedule.by_epoch else runner.iter)
        )

    def _start(self, runner) -> None:
        report = count_cost(runner.model, self.input_shape, convention=self.convention)
        self.report, self._logged = report, report.total.total_bops
        runner.logger.info(
            f'cost of {self._image}:\n{report}'
            if self.table
            else f'cost of {self._image}: {report.summary()}'
        )
        _show(runner, report)

    def _follow(self, runner) -> None:
        schedule, values, last = self._schedule, self._scheduled(runner), self._values
        if schedule is None or values == last:
            return
        assert self.report is not None, 'the cost is counted before training starts'
        report = self.report.at(_states(runner, self.report))
        self.report, self._values = report, values
        bops = report.total.total_bops
        changed = [
            schedule.schedules[quantity]
            for quantity in values
            if values[quantity] != last[quantity]
        ]
        stepped = any(not each.ramp or values[each.quantity] == each.final for each in changed)
        if stepped or abs(self._logged - bops) >= _LOGGED_CHANGE * self._logged:
            self._logged = bops
            unit = schedule.unit
            runner.logger.info(
                f'cost of {self._image} at {unit} {getattr(runner, unit)}: {report.summary()}'
            )
        _show(runner, report)

    @property
    def _image(self) -> str:
        return 'x'.join(map(str, self.input_shape))


def _states(runner, report: CostReport) -> dict[str, dict[str, Any]]:
    """Return bits and keep ratios of the counted layers, for :meth:`CostReport.at`."""
    counted = {layer.name for layer in report.layers}
    return {
        name: LayerState.of(layer).quantities
        for name, layer in compressed_layers(runner.model).items()
        if name in counted
    }


def _show(runner, report: CostReport) -> None:
    total = report.total.to_dict()
    runner.visualizer.add_scalars(
        {f'cost/{key}': total[key] for key in _SCALARS}, step=int(runner.iter)
    )
