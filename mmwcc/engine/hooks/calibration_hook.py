"""Starting clips from several batches, before training."""
from __future__ import annotations

from functools import partial
from itertools import islice

import torch
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch.utils.data import DataLoader, Subset

from mmwcc.post_training import calibrate, run_model
from mmwcc.quantizers import CALIBRATIONS
from mmwcc.registry import HOOKS

from .random_state_hook import get_random_state, set_random_state

__all__ = ['CalibrationHook']


@HOOKS.register_module()
class CalibrationHook(Hook):
    """Set the clips of all quantizers from several batches before training starts.

    Without this hook each quantizer takes its clip from the first training batch alone. The batches come from the
    training data with its augmentation, in an order of their own, and the random generators are put back, so that
    training itself sees the same batches with and without the hook. A resumed run does nothing. Quantizers
    that a checkpoint has brought along calibrated are calibrated again only with ``again=True``: then all of them are.

    With several ranks each draws from its own share of the data, all equally large: where it does not divide, the first
    images are repeated. All ranks get the same clips, from the values that all of them have seen.

    Quantizers that are still switched off (a schedule starts them at 32 bits) and those that no batch reaches (in heads
    that only training uses) learn from their first training batch, as always.

    Args:
        num_batches (int): How many batches on each rank, of the size of the training batches. Defaults to 8.
        method (str, optional): 'mse', 'percentile' or 'lsq'. Defaults to None, as each quantizer was built.
        percentile (float, optional): Percentile of magnitudes for 'percentile', in percent. Defaults to None, as each
            quantizer was built.
        again (bool): Whether to calibrate also where the checkpoint that training starts from has clips.
            Defaults to False.

    Raises:
        TypeError: If num_batches is not an integer or again is not a bool.
        ValueError: If num_batches is below 1, method unknown, or percentile not in (0, 100].
        ValueError: At the start of training, if the model has no quantizer that is on.

    Example:
        >>> default_hooks = dict(calibration=dict(type='mmwcc.CalibrationHook', num_batches=8, method='mse'))
    """

    # Behind a schedule, which sets keep_ratio and bits; before whatever measures or records what the layers do.
    priority = 'ABOVE_NORMAL'

    def __init__(self, num_batches: int = 8, method: str | None = None, percentile: float | None = None,
                 again: bool = False) -> None:
        if isinstance(num_batches, bool) or not isinstance(num_batches, int):
            raise TypeError(f'CalibrationHook: num_batches must be an integer, got {num_batches!r}. Use 8.')
        if num_batches < 1:
            raise ValueError(f'CalibrationHook: num_batches must be at least 1, got {num_batches}. Leave the hook out '
                             'to take clips from the first training batch.')
        if method is not None and method not in CALIBRATIONS:
            raise ValueError(f"CalibrationHook: method must be one of {', '.join(CALIBRATIONS)} or None, got "
                             f'{method!r}. Use None for what the quantizers were built with.')
        if percentile is not None and not 0 < percentile <= 100:
            raise ValueError(f'CalibrationHook: percentile must be in (0, 100], got {percentile}. Use 99.9 to clip one '
                             'magnitude in a thousand.')
        if not isinstance(again, bool):
            raise TypeError(f'CalibrationHook: again must be True or False, got {again!r}. Use True to replace clips '
                            'that a checkpoint has brought.')
        self.num_batches, self.method, self.percentile, self.again = num_batches, method, percentile, again

    def before_train(self, runner) -> None:
        """Calibrate, unless training is resumed."""
        if runner.iter or runner.epoch:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        state = get_random_state()
        try:
            report = calibrate(model, islice(self._batches(runner.train_dataloader), self.num_batches),
                               method=self.method, percentile=self.percentile, again=self.again,
                               forward=partial(run_model, training=True))
        finally:
            set_random_state(state)
        runner.logger.info(f'CalibrationHook: {report}')

    @staticmethod
    def _batches(loader: DataLoader) -> DataLoader:
        """Return a loader of the same data that leaves the one of training alone."""
        # Iterating over that one would move its sampler, and with persistent workers the training's own iterator.
        (rank, ranks), images = get_dist_info(), len(loader.dataset)
        share = Subset(loader.dataset, [i % images for i in range(rank, -(-images // ranks) * ranks, ranks)])
        order = torch.Generator().manual_seed(rank)
        return DataLoader(share, loader.batch_size or loader.batch_sampler.batch_size, shuffle=True,
                          collate_fn=loader.collate_fn, generator=order)
