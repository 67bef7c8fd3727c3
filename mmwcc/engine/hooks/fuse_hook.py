"""Fuse blocks in test runs."""

from __future__ import annotations

from mmengine.hooks import Hook

from mmwcc.inference import fuse_inverted_residuals
from mmwcc.model_tree import unwrapped
from mmwcc.registry import HOOKS

__all__ = ['FuseHook']


@HOOKS.register_module()
class FuseHook(Hook):
    """Fuse inverted residual blocks when a test begins, after the checkpoint has been loaded.

    Training and its validations are not affected. Fusion replaces modules and folds weights, which
    would break an optimizer, an EMA and checkpoints. This is why ``compression``, which also builds
    models for training, has no switch for it. A runner that has tested with this hook can no longer
    train.

    Example:
        >>> default_hooks = dict(fuse=dict(type='mmwcc.FuseHook'))
    """

    def before_test(self, runner) -> None:
        """Fuse the model of the runner and put it into evaluation mode."""
        fuse_inverted_residuals(unwrapped(runner.model).eval())
