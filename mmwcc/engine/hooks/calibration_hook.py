"""Calibrate starting clips on several batches before training."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any

import torch
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from torch.utils.data import DataLoader, Subset

from mmwcc.model_tree import unwrapped
from mmwcc.post_training import calibrate, run_model
from mmwcc.progress import track
from mmwcc.quantizers import CALIBRATIONS
from mmwcc.registry import HOOKS

from .random_state_hook import get_random_state, set_random_state

__all__ = ['CalibrationHook']


@HOOKS.register_module()
class CalibrationHook(Hook):
    """Set the clips of all quantizers from several batches before training starts.

    Without this hook, each quantizer takes its clip from the first training batch alone. The
    batches come from the augmented training data, in an order of their own. The random generators
    are restored afterwards, so that training sees the same batches with and without the hook. In a
    resumed run, the hook does nothing. If a checkpoint contains calibrated quantizers, they keep
    their clips unless ``again=True``; in that case all quantizers are calibrated again.

    With several ranks, each draws from its own share of the data. All shares have the same size: if
    the images cannot be divided evenly, the first ones are repeated. All ranks get the same clips,
    computed from the values that all of them have seen.

    Two kinds of quantizer still learn from their first training batch: those that are switched off
    (because a schedule starts them at 32 bits), and those that no batch reaches (in heads that only
    training uses).

    Args:
        num_batches: Number of batches on each rank, as large as the training batches. Defaults to
            8.
        method: 'mse', 'percentile' or 'lsq'. Defaults to None: the method that each quantizer was
            built with.
        percentile: Percentile of magnitudes for 'percentile', in percent. Defaults to None: the
            value that each quantizer was built with.
        again: Whether to replace clips that come from the checkpoint that training starts from.
            Defaults to False.

    Raises:
        TypeError: If num_batches is not an integer or again is not a bool.
        ValueError: If num_batches is below 1, method is unknown, or percentile is not in (0, 100].
        ValueError: At the start of training, if all quantizers of the model are switched off or it
            has none.

    Example:
        >>> calibration = dict(type='mmwcc.CalibrationHook', num_batches=8, method='mse')
        >>> default_hooks = dict(calibration=calibration)
    """

    # After a schedule, which sets keep_ratio and bits, and before hooks that measure or record
    # layers.
    priority = 'ABOVE_NORMAL'

    def __init__(
        self,
        num_batches: int = 8,
        method: str | None = None,
        percentile: float | None = None,
        again: bool = False,
    ) -> None:
        if isinstance(num_batches, bool) or not isinstance(num_batches, int):
            raise TypeError(
                f'CalibrationHook: num_batches must be an integer, got {num_batches!r}. Use 8.'
            )
        if num_batches < 1:
            raise ValueError(
                f'CalibrationHook: num_batches must be at least 1, got {num_batches}. Leave the '
                'hook out to take clips from the first training batch.'
            )
        if method is not None and method not in CALIBRATIONS:
            raise ValueError(
                f'CalibrationHook: method must be one of {", ".join(CALIBRATIONS)} or None, got '
                f'{method!r}. Use None for what the quantizers were built with.'
            )
        if percentile is not None and not 0 < percentile <= 100:
            raise ValueError(
                f'CalibrationHook: percentile must be in (0, 100], got {percentile}. Use 99.9 to '
                'clip one magnitude in a thousand.'
            )
        if not isinstance(again, bool):
            raise TypeError(
                f'CalibrationHook: again must be True or False, got {again!r}. Use True to replace '
                'clips that a checkpoint has brought.'
            )
        self.num_batches, self.again = num_batches, again
        self.method, self.percentile = method, percentile

    def before_train(self, runner) -> None:
        """Calibrate, unless training is resumed."""
        if runner.iter or runner.epoch:
            return
        state = get_random_state()
        loader = self._batches(runner.train_dataloader)
        batches = track(
            islice(loader, self.num_batches),
            'CalibrationHook',
            'batches',
            total=min(self.num_batches, len(loader)),
            say=runner.logger.info,
        )
        try:
            report = calibrate(
                unwrapped(runner.model),
                batches,
                method=self.method,
                percentile=self.percentile,
                again=self.again,
                forward=partial(run_model, training=True),
            )
        finally:
            set_random_state(state)
        runner.logger.info(f'CalibrationHook: {report}')

    @staticmethod
    def _batches(loader: Any) -> DataLoader:
        """Return a second loader of the same data, so that the training loader stays as it is."""
        # Iterating over the training loader would advance its sampler, and with persistent workers
        # also its iterator.
        (rank, ranks), images = get_dist_info(), len(loader.dataset)
        share = Subset(
            loader.dataset, [i % images for i in range(rank, -(-images // ranks) * ranks, ranks)]
        )
        order = torch.Generator().manual_seed(rank)
        return DataLoader(
            share,
            loader.batch_size or loader.batch_sampler.batch_size,
            shuffle=True,
            collate_fn=loader.collate_fn,
            generator=order,
        )
