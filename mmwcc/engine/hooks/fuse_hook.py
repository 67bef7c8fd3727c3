"""Fused blocks in test runs."""
from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mmwcc.inference import fuse_inverted_residuals
from mmwcc.registry import HOOKS

__all__ = ['FuseHook']


@HOOKS.register_module()
class FuseHook(Hook):
    """Fuse inverted residual blocks when a test begins, after the checkpoint was loaded.

    Training and its validations are untouched: fusion replaces modules and folds weights, which an optimizer, an EMA
    and a checkpoint would not survive. Hence there is no switch for it in ``compression``, which also builds models for
    training. A runner that has tested with this hook cannot train any more.

    Example:
        >>> default_hooks = dict(fuse=dict(type='mmwcc.FuseHook'))
    """

    def before_test(self, runner) -> None:
        """Fuse the runner's model and put it into evaluation mode."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        fuse_inverted_residuals(model.eval())
