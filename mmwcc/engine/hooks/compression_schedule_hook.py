"""Lower bits and keep_ratio while a model trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.base_loop import BaseLoop

from mmwcc.checkpoint import extend_stamp, read_stamp
from mmwcc.compression import Schedule, build_schedule
from mmwcc.model_tree import LayerState, compressed_layers, set_layer_state
from mmwcc.registry import HOOKS

__all__ = ['CompressionScheduleHook']

# A smooth schedule may change keep_ratio at every iteration. Only about this many changes are
# logged.
_LINES_PER_RAMP = 20


@HOOKS.register_module()
class CompressionScheduleHook(Hook):
    """Lower the bits and the keep_ratio of all compressed layers over iterations or epochs.

    The value of a schedule depends only on the iteration or epoch, so a resumed run continues
    exactly where the interrupted one stopped. A schedule limits how far compression may have gone:
    each layer gets the larger of the scheduled value and the value it was built with. Layers that a
    rule compresses less therefore keep their exception. The model ends as its config says, provided
    the schedule ends at or below that.

    A checkpoint records the last iteration and epoch that were trained in its state. When a
    checkpoint is loaded for validation or testing, the hook applies the schedule for that moment,
    so that the model is evaluated as it was trained.

    ``EMAHook`` exchanges values with the trained model, and only the layers of that model run. The
    bits and keep_ratio of its copy therefore need no treatment. The clip of a quantizer that is
    switched on during training does need it: once it is calibrated, it is copied into the averaged
    model. Otherwise the average would still contain the value from before for thousands of
    iterations.

    Args:
        by_epoch: Whether to count epochs instead of iterations, which needs an epoch-based loop.
            Defaults to False.
        keep_ratio: Schedule of the fraction of wavelet coefficients kept, for
            :func:`mmwcc.compression.schedule.build_schedule`. Defaults to None: as built.
        weight_bits: Schedule of the bits of weights. Defaults to None: as built.
        act_bits: Schedule of the bits of activations. Defaults to None: as built.

    Raises:
        TypeError: If ``by_epoch`` is not a bool or a schedule is not a dict.
        ValueError: If no schedule is given, or one is not valid.
        RuntimeError: At the start of training, if no layer has a scheduled quantity, or
            ``by_epoch=True`` is used with an iteration-based loop.

    Example:
        >>> steps = [(0, 1.0), (2000, 0.5), (4000, 0.25)]
        >>> hook = CompressionScheduleHook(keep_ratio=dict(type='step', steps=steps))
        >>> hook.values_at(2000)
        {'keep_ratio': 0.5}
    """

    # After RuntimeInfoHook, which has the same priority but is registered first. Before all hooks
    # that look at the layers.
    priority = 'VERY_HIGH'

    def __init__(
        self,
        by_epoch: bool = False,
        keep_ratio: dict | None = None,
        weight_bits: dict | None = None,
        act_bits: dict | None = None,
    ) -> None:
        if not isinstance(by_epoch, bool):
            raise TypeError(
                f'CompressionScheduleHook: by_epoch must be True or False, got {by_epoch!r}. Use '
                'False to count iterations.'
            )
        configs = dict(keep_ratio=keep_ratio, weight_bits=weight_bits, act_bits=act_bits)
        self.by_epoch = by_epoch
        self.schedules: dict[str, Schedule] = {
            quantity: build_schedule(quantity, cfg)
            for quantity, cfg in configs.items()
            if cfg is not None
        }
        if not self.schedules:
            raise ValueError(
                'CompressionScheduleHook: at least one of keep_ratio, weight_bits and act_bits '
                'must be '
                "given, got none. Did you mean keep_ratio=dict(type='step', steps=[(0, 1.0), ...])?"
            )
        self._built: dict[str, LayerState] | None = None
        self._values: dict[str, float] = {}
        self._logged: dict[str, float] = {}
        self._position: dict[str, int] | None = None
        self._uncalibrated: list[tuple[str, str]] = []
        self._trained = False

    @classmethod
    def of(cls, runner) -> CompressionScheduleHook | None:
        """Return the schedule of a runner, or None if it has none."""
        return next((hook for hook in runner.hooks if isinstance(hook, cls)), None)

    @property
    def unit(self) -> str:
        """The unit that schedules count in: 'epoch' or 'iter'."""
        return 'epoch' if self.by_epoch else 'iter'

    def values_at(self, t: int) -> dict[str, float]:
        """Return the scheduled values during iteration or epoch ``t``, counted from 0."""
        return {quantity: schedule.value_at(t) for quantity, schedule in self.schedules.items()}

    def states_at(self, runner, t: int) -> dict[str, LayerState]:
        """Return the states of all compressed layers during iteration or epoch ``t``, by layer
        name.
        """
        values = self.values_at(t)
        return {name: built.under(values) for name, built in self._remember(runner).items()}

    def recorded_moment(
        self, checkpoint: Mapping[str, Any], scheduled_only: bool = True
    ) -> int | None:
        """Return the iteration or epoch that the state of a checkpoint belongs to, or None.

        Args:
            checkpoint: The checkpoint.
            scheduled_only: Whether to ignore checkpoints of runs without a schedule. Defaults to
                True.
        """
        stamp = read_stamp(checkpoint)
        return stamp.get(self.unit) if stamp.get('scheduled') or not scheduled_only else None

    def before_run(self, runner) -> None:
        """Remember how the layers were built."""
        self._remember(runner)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Restore the scheduled state that a checkpoint was written in, unless training sets it."""
        training = isinstance(runner._train_loop, BaseLoop) and not self._trained
        if training or not self._remember(runner):
            return
        moment = self.recorded_moment(checkpoint)
        if moment is None:
            runner.logger.info(
                'CompressionScheduleHook: the checkpoint does not record where a compression '
                'schedule stood, so the layers are evaluated as they were built.'
            )
            return
        self._apply(runner, moment)

    def before_train(self, runner) -> None:
        """Check that the schedule fits the training run.

        Apply it as well, because a validation may run before the first training iteration.
        """
        self._check(runner)
        self._follow(runner)

    def before_train_epoch(self, runner) -> None:
        """Apply the schedule if its values have changed."""
        self._follow(runner)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Apply the schedule if its values have changed."""
        self._follow(runner)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Copy new clips into averaged models, before ``EMAHook`` (NORMAL) averages."""
        if self._uncalibrated:
            self._hand_over(runner)

    def after_train(self, runner) -> None:
        """Remember that any checkpoint loaded from now on is loaded for evaluation."""
        self._trained = True

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Record the last iteration and epoch that were trained in the current state."""
        if self._position is not None:
            extend_stamp(checkpoint, dict(self._position, scheduled=True))

    def _remember(self, runner) -> dict[str, LayerState]:
        """Return the states the layers were built with, recorded before the first change."""
        if self._built is None:
            self._built = {
                name: LayerState.of(layer)
                for name, layer in compressed_layers(runner.model).items()
            }
        return self._built

    def _follow(self, runner) -> None:
        # Record the counters now, not when a checkpoint is saved: both may have advanced by then
        # while the state has not, for example when the best checkpoint is written during
        # validation.
        self._position = dict(iter=int(runner.iter), epoch=int(runner.epoch))
        self._apply(runner, self._position[self.unit])

    def _apply(self, runner, t: int) -> None:
        """Set all layers for iteration or epoch ``t`` if the values differ from those last set."""
        values = self.values_at(t)
        if values == self._values:
            return
        layers = compressed_layers(runner.model)
        built = self._remember(runner)
        for quantity, value in values.items():
            if value == self._values.get(quantity):
                continue
            targets = {
                name: getattr(built[name].under({quantity: value}), quantity)
                for name in layers
                if built[name].has(quantity)
            }
            changed = sum(
                set_layer_state(layers[name], {quantity: target})
                for name, target in targets.items()
            )
            self._log(
                runner, t, quantity, value, changed if quantity in self._values else len(targets)
            )
            runner.message_hub.update_scalar(f'train/compression/{quantity}', value)
        # Reading the buffers waits for the device, so do it only if a change of bits may have
        # switched quantizers on.
        if not self._values or any(
            values[key] != self._values[key] for key in values if key != 'keep_ratio'
        ):
            self._uncalibrated = [
                (name, role)
                for name, layer in layers.items()
                for role in ('weight_quant', 'act_quant')
                if getattr(layer, role) is not None
                and getattr(layer, role).is_on
                and not getattr(layer, role).is_settled
            ]
        self._values = values

    def _hand_over(self, runner) -> None:
        layers = compressed_layers(runner.model)
        calibrated = [
            pair for pair in self._uncalibrated if getattr(layers[pair[0]], pair[1]).is_settled
        ]
        self._uncalibrated = [pair for pair in self._uncalibrated if pair not in calibrated]
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                averaged = compressed_layers(hook.ema_model)
                for name, role in calibrated:
                    getattr(averaged[name], role).load_state_dict(
                        getattr(layers[name], role).state_dict()
                    )

    def _log(self, runner, t: int, quantity: str, value: float, layers: int) -> None:
        last, schedule = self._logged.get(quantity), self.schedules[quantity]
        if (
            last is not None
            and value != schedule.final
            and abs(last - value) * _LINES_PER_RAMP < schedule.ramp
        ):
            return
        change = f'{value:g}' if last is None else f'{last:g} -> {value:g}'
        runner.logger.info(
            f'compression schedule at {self.unit} {t}: {quantity} {change} on {layers} layers'
        )
        self._logged[quantity] = value

    def _check_values(self, runner, quantity: str, schedule: Schedule) -> None:
        """Reject a schedule with bits that one of the layers will not be able to have."""
        layers, role = compressed_layers(runner.model), quantity.replace('_bits', '_quant')
        for name, built in self._remember(runner).items():
            if quantity == 'keep_ratio' or not built.has(quantity):
                continue
            for value in schedule.values:
                bits = getattr(built.under({quantity: value}), quantity)
                try:
                    getattr(layers[name], role).check_bits(bits)
                except (TypeError, ValueError) as error:
                    raise type(error)(
                        f'CompressionScheduleHook: the schedule of {quantity} must suit all '
                        f'layers, got {value:g}, which {name} cannot have. {error}'
                    ) from error

    def _check(self, runner) -> None:
        """Reject a schedule that can have no effect, and warn of one that is not completed."""
        if self.by_epoch and isinstance(runner.train_loop, IterBasedTrainLoop):
            raise RuntimeError(
                'CompressionScheduleHook: by_epoch must be False with an iteration-based training '
                'loop, got True. Such a loop stays in epoch 0; give the moments in iterations.'
            )
        built = self._remember(runner)
        length = runner.max_epochs if self.by_epoch else runner.max_iters
        for quantity, schedule in self.schedules.items():
            layers = {
                name: getattr(state, quantity)
                for name, state in built.items()
                if state.has(quantity)
            }
            if not layers:
                raise RuntimeError(
                    f'CompressionScheduleHook: a schedule of {quantity} needs layers that have it, '
                    f'got none among {len(built)} compressed layers. Add them to the compression '
                    f'config of the model, or drop {quantity} from the hook.'
                )
            self._check_values(runner, quantity, schedule)
            above = [name for name, value in layers.items() if value < schedule.final]
            if above:
                runner.logger.warning(
                    f'CompressionScheduleHook: {quantity} ends at {schedule.final:g}, above what '
                    f'{len(above)} layers were built with ({above[0]}: {layers[above[0]]:g}). '
                    'Models built without a runner, as by inference APIs, will compress more than '
                    'this training did.'
                )
            if schedule.end >= length:
                runner.logger.warning(
                    f'CompressionScheduleHook: {quantity} reaches {schedule.final:g} at '
                    f'{self.unit} {schedule.end}, but training ends at {length}, so the model is '
                    f'never trained in its final state.'
                )
