"""Save random states in checkpoints, so that a resumed run repeats the interrupted one exactly."""

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
    """Return the states of the global generators of Python, NumPy and torch.

    The generators of torch are those of the CPU, and of CUDA if it is in use.

    Returns:
        Tensors and plain data, which ``torch.load(weights_only=True)`` reads.
    """
    version, words, gauss = random.getstate()
    numpy = np.random.get_state(legacy=False)
    return dict(
        python=[version, torch.tensor(words, dtype=torch.int64), gauss],
        numpy=[
            torch.from_numpy(numpy['state']['key'].astype(np.int64)),
            int(numpy['state']['pos']),
            int(numpy['has_gauss']),
            float(numpy['gauss']),
        ],
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        cuda_device=torch.cuda.current_device() if torch.cuda.is_initialized() else 0,
    )


def set_random_state(state: dict[str, Any]) -> None:
    """Set the global generators to the states that :func:`get_random_state` returned.

    The tensors may have been moved to a device since then, for example by
    ``torch.load(map_location=...)``.

    Args:
        state: What :func:`get_random_state` returned. States of CUDA devices that this machine
            lacks are ignored.
    """
    version, words, gauss = state['python']
    random.setstate((version, tuple(words.tolist()), gauss))
    keys, position, has_gauss, cached = state['numpy']
    np.random.set_state(
        ('MT19937', keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached)
    )
    torch.set_rng_state(state['torch'].cpu())
    if torch.cuda.is_available():
        for device, cuda in enumerate(state['cuda'][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(cuda.cpu(), device)


class _RestoringIterator:
    """A data iterator that sets the random states before each batch, until the hook removes it.

    An iteration-based loop first fetches the batches that were already trained on, and then the
    first new one, without calling a hook in between. Only the state before the last of them
    matters, so it is safe to set the states before each.
    """

    def __init__(self, iterator, state: dict[str, Any]) -> None:
        self.iterator = iterator
        self._state = state

    def __iter__(self):
        return self

    def __next__(self):
        # Some mmengine versions create the iterator of the data loader only here. That draws a
        # random number, which the interrupted run drew long before.
        getattr(self.iterator, '_ensure_iterator', lambda: None)()
        set_random_state(self._state)
        return next(self.iterator)

    def __getattr__(self, name: str):
        return getattr(self.iterator, name)


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Save random states in checkpoints, restore them on resuming, and keep validation out of them.

    With this hook, a run that was killed and resumed has the same weights as an uninterrupted run,
    bit for bit. Data augmentation, dropout and everything else that draws from the generators of
    Python, NumPy and torch continue where they stopped. Validation draws from the generators too,
    but leaves no trace in training. States are restored only when training is resumed, never when
    only weights are loaded.

    This requires a fixed ``randomness=dict(seed=...)``, deterministic operations (on GPUs
    ``deterministic=True``) and, in epoch-based loops, checkpoints at the end of an epoch. mmengine
    seeds the worker processes of data loaders. In iteration-based loops they go through the skipped
    batches again. In epoch-based loops their states agree unless ``persistent_workers=True``.

    Rank 0 writes the checkpoints, which hold its states. Other ranks restore the same states,
    because mmengine starts all ranks from one seed. With ``randomness=dict(diff_rank_seed=True)``,
    they are seeded again from these states and the rank. That is reproducible, but differs from the
    sequence they had before.

    Raises:
        RuntimeError: When training is resumed, if the checkpoint lacks the state of the optimizer
            or of the parameter schedules (``save_optimizer=False``), or its schedules are not those
            of the run.

    Example:
        >>> default_hooks = dict(random_state=dict(type='mmwcc.RandomStateHook'))
    """

    # First, so that numbers that other hooks draw at the start of an epoch or a validation belong
    # to it.
    priority = 'HIGHEST'

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None
        self._before_val: dict[str, Any] | None = None
        self._replaced: _RestoringIterator | None = None

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Save the states that training continues with: during validation, those from before it."""
        state = get_random_state() if self._before_val is None else self._before_val
        checkpoint[_KEY] = dict(state, sampler_seed=_sampler_seed(runner))

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep the states for ``before_train``; reject a checkpoint that would restart training."""
        refuse_new_start('RandomStateHook', runner, checkpoint)
        self._loaded = checkpoint.get(_KEY)

    def before_train(self, runner) -> None:
        """Prepare to restore the states if the counters of the loop show that the run resumes."""
        state, self._loaded = self._loaded, None
        if runner.iter == 0 and runner.epoch == 0:
            return
        if state is None:
            runner.logger.warning(
                'RandomStateHook: the checkpoint has no random states, so the resumed run differs '
                'from an uninterrupted one.'
            )
            return
        self._warn_of_differences(runner, state)
        state = _for_rank(runner, state)
        loop = runner.train_loop
        if hasattr(loop, 'dataloader_iterator'):
            self._replaced = loop.dataloader_iterator = _RestoringIterator(
                loop.dataloader_iterator, state
            )
        else:
            self._loaded = state
        runner.logger.info(
            f'RandomStateHook: random states of iteration {runner.iter} are restored.'
        )

    def before_train_epoch(self, runner) -> None:
        """Restore the states before an epoch-based loop starts its data loader."""
        if self._loaded is not None:
            set_random_state(self._loaded)
            self._loaded = None

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Restore the original data iterator once the first new batch has been fetched."""
        if self._replaced is not None:
            runner.train_loop.dataloader_iterator = self._replaced.iterator
            self._replaced = None

    def before_val(self, runner) -> None:
        """Remember the random states of training."""
        self._before_val = get_random_state()

    def after_val(self, runner) -> None:
        """Restore the random states of training."""
        assert self._before_val is not None, 'mmengine calls before_val first'
        set_random_state(self._before_val)
        self._before_val = None

    @staticmethod
    def _warn_of_differences(runner, state: dict[str, Any]) -> None:
        loop = runner.train_loop
        if not hasattr(loop, 'dataloader_iterator') and runner.iter != runner.epoch * len(
            loop.dataloader
        ):
            runner.logger.warning(
                f'RandomStateHook: the checkpoint was written within an epoch (iteration '
                f'{runner.iter}), which mmengine resumes from its first batch, so the resumed run '
                'differs from an uninterrupted one. Save by_epoch=True to avoid it.'
            )
        if state['sampler_seed'] != _sampler_seed(runner):
            runner.logger.warning(
                f'RandomStateHook: the order of the data was seeded with {state["sampler_seed"]} '
                f'and is now seeded with {_sampler_seed(runner)}, so the resumed run differs from '
                f'an uninterrupted one. Set randomness=dict(seed={state["sampler_seed"]}) in the '
                f'config.'
            )


def _sampler_seed(runner) -> int | None:
    loader = runner.train_dataloader
    for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None)):
        seed = getattr(sampler, 'seed', None)
        if isinstance(seed, int):
            return seed
    return None


def _for_rank(runner, state: dict[str, Any]) -> dict[str, Any]:
    """Derive the states of this rank from those of rank 0."""
    rank = get_rank()
    if rank == 0:
        return state
    if not runner._randomness_cfg.get('diff_rank_seed', False):
        # In the process of rank 0, only the generator of its own device was in use.
        used = state['cuda'][state['cuda_device'] : state['cuda_device'] + 1]
        return dict(state, cuda=used * len(state['cuda']))
    digest = hashlib.sha256(
        state['torch'].cpu().numpy().tobytes() + rank.to_bytes(4, 'little')
    ).digest()
    seed = int.from_bytes(digest[:4], 'little')
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return get_random_state()
