"""Freeze clips and BatchNorm statistics towards the end of quantization-aware training."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmwcc.model_tree import unwrapped
from mmwcc.quantizers import UniformQuantizer
from mmwcc.registry import HOOKS

__all__ = ['QuantizerFreezeHook']


@HOOKS.register_module()
class QuantizerFreezeHook(Hook):
    """Freeze quantizer clips and BatchNorm statistics from a given moment of training on.

    If clips and running statistics move until the end, they move the grid under the weights that
    adapt to it. Whether something is frozen depends only on the iteration (or epoch), so that a
    resumed run continues as before.

    **Clips** keep ``requires_grad``, because DistributedDataParallel waits for the gradient of
    every parameter it knew when it was built. Their gradients are set to zero as they arrive, so
    that they do not contribute to gradient clipping. Before the optimizer steps, the gradients are
    removed, so that it applies neither momentum nor weight decay: a frozen clip does not change by
    a single bit. **BatchNorm** layers are put into evaluation mode before each iteration, even if
    something called ``train()`` in between. Their scale and shift continue to train.

    When clips and statistics are frozen, they are also copied into the averaged model of
    ``EMAHook``, because its weights will be evaluated on the same grid.

    Args:
        clip_alpha: First iteration or epoch with frozen clips, counted from 0. Defaults to None,
            never.
        batch_norm: First iteration or epoch with frozen BatchNorm statistics. Defaults to None,
            never.
        by_epoch: Whether to count epochs instead of iterations, which needs an epoch-based loop.
            Defaults to False.

    Raises:
        TypeError: If ``by_epoch`` is not a bool, or a moment is not an integer.
        ValueError: If no moment is given, or one is negative.
        RuntimeError: At the start of training, if the model has nothing to freeze, or
            ``by_epoch=True`` is used with an iteration-based loop.

    Note:
        A quantizer may not have learned its clip when clips are frozen, for example if a schedule
        switches it on later. It still learns the clip from its first batch, and then keeps it.
        Optimizers must be those of torch, inside mmengine's OptimWrapper.

    Example:
        >>> hook = QuantizerFreezeHook(clip_alpha=16000, batch_norm=18000)

    Reference:
        Krishnamoorthi, Quantizing deep convolutional networks for efficient inference, 2018, on
        freezing BatchNorm statistics towards the end of quantization-aware training.
    """

    # EMAHook (NORMAL) averages after an iteration what this hook has frozen before it.
    priority = 'NORMAL'

    def __init__(
        self, clip_alpha: int | None = None, batch_norm: int | None = None, by_epoch: bool = False
    ) -> None:
        if not isinstance(by_epoch, bool):
            raise TypeError(
                f'QuantizerFreezeHook: by_epoch must be True or False, got {by_epoch!r}. Use False '
                'to count iterations.'
            )
        self.moments = {
            what: moment
            for what, moment in (('clip_alpha', clip_alpha), ('batch_norm', batch_norm))
            if moment is not None
        }
        if not self.moments:
            raise ValueError(
                'QuantizerFreezeHook: at least one of clip_alpha and batch_norm must be given, got '
                'none. Use clip_alpha=16000 to freeze the clips from iteration 16000 on.'
            )
        for what, moment in self.moments.items():
            if isinstance(moment, bool) or not isinstance(moment, int):
                raise TypeError(
                    f'QuantizerFreezeHook: {what} must be an integer or None, got {moment!r}. Give '
                    'the first iteration or epoch, from 0, in which it is frozen.'
                )
            if moment < 0:
                raise ValueError(
                    f'QuantizerFreezeHook: {what} must be at least 0, got {moment}. Use 0 to '
                    'freeze from the start, None for never.'
                )
        self.by_epoch = by_epoch
        self._frozen: set[str] = set()
        self._norms: list[nn.Module] = []
        self._handles: list = []

    def before_train(self, runner) -> None:
        """Check that there is something to freeze, and warn if training ends before that."""
        if self.by_epoch and isinstance(runner.train_loop, IterBasedTrainLoop):
            raise RuntimeError(
                'QuantizerFreezeHook: by_epoch must be False with an iteration-based training '
                'loop, got True. Such a loop stays in epoch 0; give the moments in iterations.'
            )
        length, unit = (runner.max_epochs, 'epoch') if self.by_epoch else (runner.max_iters, 'iter')
        for what, moment in self.moments.items():
            if not _parts(runner.model, what):
                kind = 'quantizers' if what == 'clip_alpha' else 'BatchNorm layers'
                raise RuntimeError(
                    f'QuantizerFreezeHook: {what} needs a model with {kind}, got '
                    f'{type(unwrapped(runner.model)).__name__} without. Leave {what} out.'
                )
            if moment >= length:
                runner.logger.warning(
                    f'QuantizerFreezeHook: {what} is to be frozen from {unit} {moment} on, but '
                    f'training ends at {length}.'
                )

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Freeze what is due, and put frozen BatchNorm layers back into evaluation mode."""
        for what, moment in self.moments.items():
            if (
                what not in self._frozen
                and (runner.epoch if self.by_epoch else runner.iter) >= moment
            ):
                self._freeze(runner, what)
        for norm in self._norms:
            norm.eval()

    def after_train(self, runner) -> None:
        """Remove the hooks from the clips and the optimizers."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _freeze(self, runner, what: str) -> None:
        parts = _parts(runner.model, what)
        self._frozen.add(what)
        note = ''
        if what == 'batch_norm':
            self._norms = list(parts.values())
        else:
            self._stop(
                [quantizer.clip_alpha for quantizer in parts.values()],
                _optimizers(runner.optim_wrapper),
            )
            later = sum(not quantizer.is_settled for quantizer in parts.values())
            note = f'; {later} of them learn their clip from their first batch' if later else ''
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                _copy(parts, _parts(hook.ema_model, what), what)
        runner.logger.info(
            f'QuantizerFreezeHook: {what} of {len(parts)} modules is frozen from iter '
            f'{runner.iter} on{note}.'
        )

    def _stop(self, clips: list[nn.Parameter], optimizers: list[torch.optim.Optimizer]) -> None:

        def take_away(optimizer, args, kwargs) -> None:
            for clip in clips:
                clip.grad = None

        self._handles += [
            clip.register_hook(torch.zeros_like) for clip in clips if clip.requires_grad
        ]
        self._handles += [optimizer.register_step_pre_hook(take_away) for optimizer in optimizers]


def _parts(model: nn.Module, what: str) -> dict[str, Any]:
    kind = UniformQuantizer if what == 'clip_alpha' else _BatchNorm
    return {
        name: module
        for name, module in unwrapped(model).named_modules()
        if isinstance(module, kind)
    }


def _optimizers(wrapper: OptimWrapper | OptimWrapperDict) -> list[torch.optim.Optimizer]:
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return [each.optimizer for each in wrappers]


@torch.no_grad()
def _copy(parts: dict[str, nn.Module], averaged: dict[str, nn.Module], what: str) -> None:
    """Copy frozen parts into the averaged model: clips, or the buffers of BatchNorm."""
    for name, part in parts.items():
        tensors: dict[str, Tensor] = dict(
            part.named_parameters() if what == 'clip_alpha' else part.named_buffers()
        )
        for key, tensor in tensors.items():
            getattr(averaged[name], key).copy_(tensor)
