"""Random states that travel in checkpoints, so that a resumed run is the interrupted one."""
from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from mmwcc.registry import HOOKS
from mmwcc.utils import refuse_new_start

__all__ = ['RandomStateHook', 'get_random_state', 'set_random_state']

_KEY = 'mmwcc_random_state'


def get_random_state() -> dict[str, Any]:
    """Return the states of the global generators of Python, NumPy and torch (CPU, and CUDA where it is in use).

    Returns:
        dict: Tensors and plain data, which ``torch.load(weights_only=True)`` reads.
    """
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    return dict(
        python=[version, torch.tensor(words, dtype=torch.int64), gauss],
        numpy=[torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        cuda_device=torch.cuda.current_device() if torch.cuda.is_initialized() else 0)


def set_random_state(state: dict[str, Any]) -> None:
    """Put the global generators into the states that :func:`get_random_state` returned.

    Tensors may have been moved to a device, as by ``torch.load(map_location=...)``.

    Args:
        state (dict): What :func:`get_random_state` returned. States of CUDA devices that are not here are ignored.
    """
    version, words, gauss = state['python']
    random.setstate((version, tuple(words.tolist()), gauss))
    keys, position, has_gauss, cached = state['numpy']
    np.random.set_state(('MT19937', keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state['torch'].cpu())
    if torch.cuda.is_available():
        for device, cuda in enumerate(state['cuda'][:torch.cuda.device_count()]):
            torch.cuda.set_rng_state(cuda.cpu(), device)


class _RestoringIterator:
    """A data iterator that sets the random states before each batch, for as long as the hook leaves it in place.

    An iteration-based loop first fetches the batches that were already trained on, and then the first new one,
    without a hook between them. Setting the states before each is right for the only one that counts, the last.
    """

    def __init__(self, iterator, state: dict[str, Any]) -> None:
        self.iterator = iterator
        self._state = state

    def __iter__(self):
        return self

    def __next__(self):
        # Some mmengine versions create the iterator of the data loader only here, which draws a random number that
        # the interrupted run drew long before.
        getattr(self.iterator, '_ensure_iterator', lambda: None)()
        set_random_state(self._state)
        return next(self.iterator)

    def __getattr__(self, name: str):
        return getattr(self.iterator, name)


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Save the random states in checkpoints, restore them on resuming, and keep validation out of them.

    With it, a run that was killed and resumed has, bit for bit, the weights of a run that was not: data augmentation,
    dropout and everything else that draws from the generators of Python, NumPy and torch goes on where it was, and
    validation, which draws from them too, leaves no trace in training. States are restored only when training is
    resumed, never when weights are merely loaded.

    What it takes: a fixed ``randomness=dict(seed=...)``, deterministic operations (on GPUs ``deterministic=True``),
    and checkpoints at the end of an epoch in epoch-based loops. Worker processes of data loaders are seeded by
    mmengine and go through the skipped batches again in iteration-based loops; in epoch-based loops they agree unless
    ``persistent_workers=True``.

    Checkpoints are written by rank 0 and hold its states. Other ranks take over the same states, since mmengine
    starts all ranks from one seed; with ``randomness=dict(diff_rank_seed=True)`` they are seeded anew from these
    states and the rank, which is reproducible but not the sequence they had.

    Raises:
        RuntimeError: While training is resumed, if the checkpoint lacks the state of the optimizer or of
            the parameter schedules (``save_optimizer=False``), or its schedules are not those of the run.

    Example:
        >>> default_hooks = dict(random_state=dict(type='mmwcc.RandomStateHook'))
    """

    # First, so that what other hooks draw at the start of an epoch or of a validation counts as theirs.
    priority = 'HIGHEST'

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None
        self._before_val: dict[str, Any] | None = None
        self._replaced: _RestoringIterator | None = None

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Write the states with which training goes on: during validation, those from before it."""
        state = get_random_state() if self._before_val is None else self._before_val
        checkpoint[_KEY] = dict(state, sampler_seed=_sampler_seed(runner))

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep the states until it is known whether training is resumed; refuse to resume with parts anew."""
        refuse_new_start('RandomStateHook', runner, checkpoint)
        self._loaded = checkpoint.get(_KEY)

    def before_train(self, runner) -> None:
        """Prepare to restore the states if the counters of the loop say that training is resumed."""
        state, self._loaded = self._loaded, None
        if runner.iter == 0 and runner.epoch == 0:
            return
        if state is None:
            runner.logger.warning('RandomStateHook: the checkpoint has no random states, so the resumed run differs '
                                  'from an uninterrupted one.')
            return
        self._warn_of_differences(runner, state)
        state = _for_rank(runner, state)
        loop = runner.train_loop
        if hasattr(loop, 'dataloader_iterator'):
            self._replaced = loop.dataloader_iterator = _RestoringIterator(loop.dataloader_iterator, state)
        else:
            self._loaded = state
        runner.logger.info(f'RandomStateHook: random states of iteration {runner.iter} are restored.')

    def before_train_epoch(self, runner) -> None:
        """Restore the states before an epoch-based loop starts its data loader."""
        if self._loaded is not None:
            set_random_state(self._loaded)
            self._loaded = None

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Give the data iterator back once the first new batch was fetched."""
        if self._replaced is not None:
            runner.train_loop.dataloader_iterator = self._replaced.iterator
            self._replaced = None

    def before_val(self, runner) -> None:
        """Remember the states of training."""
        self._before_val = get_random_state()

    def after_val(self, runner) -> None:
        """Restore the states of training."""
        set_random_state(self._before_val)
        self._before_val = None

    @staticmethod
    def _warn_of_differences(runner, state: dict[str, Any]) -> None:
        loop = runner.train_loop
        if not hasattr(loop, 'dataloader_iterator') and runner.iter != runner.epoch * len(loop.dataloader):
            runner.logger.warning(
                f'RandomStateHook: the checkpoint was written within an epoch (iteration {runner.iter}), which '
                'mmengine resumes from its first batch, so the resumed run differs from an uninterrupted one. Save '
                'by_epoch=True to avoid it.')
        if state['sampler_seed'] != _sampler_seed(runner):
            runner.logger.warning(
                f'RandomStateHook: the order of the data was seeded with {state["sampler_seed"]} and is now seeded '
                f'with {_sampler_seed(runner)}, so the resumed run differs from an uninterrupted one. Set '
                f'randomness=dict(seed={state["sampler_seed"]}) in the config.')


def _sampler_seed(runner) -> int | None:
    loader = runner.train_dataloader
    for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None)):
        seed = getattr(sampler, 'seed', None)
        if isinstance(seed, int):
            return seed
    return None


def _for_rank(runner, state: dict[str, Any]) -> dict[str, Any]:
    """Return the states for this rank, made from those of rank 0."""
    rank = get_rank()
    if rank == 0:
        return state
    if not runner._randomness_cfg.get('diff_rank_seed', False):
        # The generators of the other devices were idle in the process of rank 0; that of its own device was not.
        used = state['cuda'][state['cuda_device']:state['cuda_device'] + 1]
        return dict(state, cuda=used * len(state['cuda']))
    digest = hashlib.sha256(state['torch'].cpu().numpy().tobytes() + rank.to_bytes(4, 'little')).digest()
    seed = int.from_bytes(digest[:4], 'little')
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return get_random_state()
