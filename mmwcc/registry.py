"""Registries of mmwcc: children of mmengine's roots, so that ``type='mmwcc.X'`` works in any OpenMMLab config.

Each registry names the modules that fill it (``locations``); mmengine imports them when a ``mmwcc.`` name is first
asked for, so configs need no ``custom_imports``. Where mmengine is not installed, a small stand-in lets the layers,
quantizers and :func:`mmwcc.compression.compress_model` build from the same dictionaries with torch alone.
"""
from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

__all__ = ['MODELS', 'HOOKS', 'DATASETS', 'TRANSFORMS', 'METRICS']


class _TorchOnlyRegistry:
    """The part of ``mmengine.registry.Registry`` that mmwcc's own components need, without mmengine."""

    def __init__(self, name: str, locations: list[str]) -> None:
        self.name = name
        self._locations = locations
        self._types: dict[str, object] = {}

    def register_module(self, name: str | None = None):
        """Return a decorator that registers a class or function, under its own name by default."""

        def register(component):
            self._types[name or component.__name__] = component
            return component

        return register

    def get(self, key: str):
        """Return what is registered as ``key``, with or without the ``mmwcc.`` scope, or None."""
        name = key.removeprefix('mmwcc.')
        if name not in self._types:
            for location in self._locations:
                import_module(location)
        return self._types.get(name)

    def build(self, cfg: dict):
        """Call the registered ``cfg['type']`` with the rest of ``cfg`` as keyword arguments."""
        kwargs = dict(cfg)
        kind = kwargs.pop('type')
        component = self.get(kind) if isinstance(kind, str) else kind
        if component is None:
            raise KeyError(f'{kind} is not in the mmwcc::{self.name} registry. It may need mmengine, which is not '
                           "installed: pip install 'mmwcc[openmmlab]'.")
        return component(**kwargs)


def _registry(name: str, locations: list[str]):
    if find_spec('mmengine') is None:
        return _TorchOnlyRegistry(name, locations)
    import mmengine.registry as roots
    parent = getattr(roots, {'model': 'MODELS', 'hook': 'HOOKS', 'dataset': 'DATASETS', 'transform': 'TRANSFORMS',
                             'metric': 'METRICS'}[name])
    return roots.Registry(name, parent=parent, scope='mmwcc', locations=locations)


MODELS = _registry('model', ['mmwcc.quantizers', 'mmwcc.layers', 'mmwcc.models'])
HOOKS = _registry('hook', ['mmwcc.engine.hooks'])
DATASETS = _registry('dataset', ['mmwcc.datasets'])
TRANSFORMS = _registry('transform', ['mmwcc.datasets'])
METRICS = _registry('metric', ['mmwcc.evaluation'])
