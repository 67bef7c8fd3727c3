"""Advice for older checkpoints, whose networks compress prediction layers that now stay dense."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from torch import nn

from mmwcc.model_tree import convolutions, kept_by_name

__all__ = ['advice_for', 'watch_predictions']


class _Watch:
    """Warn when a loaded checkpoint compresses layers that ``keep_dense='last'`` keeps dense.

    Before this release, prediction layers were recognized by their names only, and those that were
    missed were compressed. Loading would drop their quantizers, with ``strict=False`` even
    silently.

    Args:
        protected: Names of the convolutions that 'last' keeps dense.
        before: Names of the convolutions that 'last' kept dense before this release.
        keep_dense: All entries of ``keep_dense``.
    """

    def __init__(
        self, protected: Iterable[str], before: Iterable[str], keep_dense: Iterable[str]
    ) -> None:
        self.protected, self.before = tuple(protected), tuple(before)
        self.keep_dense = tuple(keep_dense)

    def advice(self, keys: Iterable[str]) -> str:
        """Return how to build the network that a checkpoint belongs to, or '' if this one fits.

        Args:
            keys: Keys that only the checkpoint has, or names of layers that it compresses.
        """
        keys = [f'.{key}.' for key in keys]
        compressed = [name for name in self.protected if any(f'.{name}.' in key for key in keys)]
        if not compressed:
            return ''
        last = [
            name
            for name in dict.fromkeys([*self.before, *self.protected])
            if name not in compressed
        ]
        entries = [new for old in self.keep_dense for new in (last if old == 'last' else [old])]
        return (
            "keep_dense 'last' keeps all prediction layers dense, and the checkpoint compresses "
            f'{", ".join(compressed)}, as mmwcc did before this release. Set '
            f'keep_dense={entries!r} in the compression config to build the network that it '
            'belongs to.'
        )

    def __call__(self, module: nn.Module, incompatible_keys) -> None:
        advice = self.advice(incompatible_keys.unexpected_keys)
        if advice:
            warnings.warn(f'{type(module).__name__}: {advice}', stacklevel=2)


def watch_predictions(model: nn.Module, protected: list[str], keep_dense: Iterable[str]) -> None:
    """Let a model warn when a checkpoint compresses layers that ``'last'`` keeps dense.

    Args:
        model: The model.
        protected: Names of the convolutions that 'last' keeps dense.
        keep_dense: All entries of ``keep_dense``.
    """
    hooks = model._load_state_dict_post_hooks
    for key in [key for key, hook in hooks.items() if isinstance(hook, _Watch)]:
        del hooks[key]
    if protected:
        before = kept_by_name(model, list(convolutions('watch_predictions', model)))
        model.register_load_state_dict_post_hook(_Watch(protected, before, keep_dense))


def advice_for(model: nn.Module, names: Iterable[str]) -> str:
    """Return how to build a network that compresses these layers, or '' if they do not predict.

    Args:
        model: The model, which may be wrapped.
        names: Names of layers and quantizers that only the checkpoint has.
    """
    hooks = [
        hook
        for module in model.modules()
        for hook in module._load_state_dict_post_hooks.values()
        if isinstance(hook, _Watch)
    ]
    return ' '.join(filter(None, (hook.advice(names) for hook in hooks)))
