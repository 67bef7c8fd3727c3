"""Registries of mmwcc, so that ``type='mmwcc.X'`` works in any OpenMMLab config.

They are children of mmengine's root registries. Each names the modules that fill it
(``locations``). mmengine imports these when a name that starts with ``mmwcc.`` is first looked up,
so configs need no ``custom_imports``. Where mmengine is not installed, a small stand-in takes its
place. Then layers, quantizers and :func:`mmwcc.compression.compress_model` build from the same
dictionaries with torch alone.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import FunctionType

__all__ = ['MODELS', 'HOOKS', 'DATASETS', 'TRANSFORMS', 'METRICS', 'find_model', 'type_name']


def type_name(kind) -> str:
    """Return the name of what a ``type`` refers to, in whichever form a config holds it.

    Text configs write ``'mmwcc.X'``. Pure-Python configs hold the class or function itself. While
    they are read, they hold a stand-in of mmengine's. Once they are dumped, they hold the import
    path.

    Args:
        kind: The value of a ``type``.

    Returns:
        ``'mmwcc.X'`` for a component of mmwcc, the import path of another class or function, and
        any other name as it is.

    Example:
        >>> from mmwcc.layers import QuantConv2d
        >>> kinds = 'mmwcc.QuantConv2d', 'mmwcc.layers.QuantConv2d', QuantConv2d
        >>> {type_name(kind) for kind in kinds}
        {'mmwcc.QuantConv2d'}
    """
    path = kind if isinstance(kind, str) else _import_path(kind)
    return f'mmwcc.{path.rpartition(".")[2]}' if path.startswith('mmwcc.') else path


def _import_path(kind) -> str:
    if isinstance(kind, (type, FunctionType)):
        return f'{kind.__module__}.{kind.__qualname__}'
    # mmengine's LazyObject and LazyAttr print only the name, without the module.
    return f'{kind.module}.{kind}' if type(kind).__module__ == 'mmengine.config.lazy' else str(kind)


class _TorchOnlyRegistry:
    """The part of ``mmengine.registry.Registry`` that mmwcc needs, without mmengine."""

    def __init__(self, name: str, locations: list[str]) -> None:
        self.name = name
        self._locations = locations
        self._types: dict[str, object] = {}

    @property
    def module_dict(self) -> dict[str, object]:
        """What is registered, by name."""
        return self._types

    def register_module(self, name: str | None = None):
        """Return a decorator that registers a class or function, by default under its own name."""

        def register(component):
            self._types[name or component.__name__] = component
            return component

        return register

    def get(self, key: str):
        """Return what is registered as ``key``, with or without the ``mmwcc.`` scope, or None."""
        name = key.removeprefix('mmwcc.')
        if name not in self._types:
            for location in self._locations:
                try:
                    import_module(location)
                except ModuleNotFoundError as error:
                    if error.name != 'mmengine':
                        raise
        return self._types.get(name)

    def build(self, cfg: dict):
        """Call the registered ``cfg['type']`` with the rest of ``cfg`` as keyword arguments."""
        kwargs = dict(cfg)
        kind = kwargs.pop('type')
        component = self.get(kind) if isinstance(kind, str) else kind
        if component is None:
            raise KeyError(
                f'{kind} is not in the mmwcc::{self.name} registry. It may need mmengine, which is '
                'not '
                "installed: pip install 'mmwcc[openmmlab]'."
            )
        return component(**kwargs)


def _registry(name: str, locations: list[str]):
    """Return a child of mmengine's registry of this name, or the stand-in without mmengine."""
    if find_spec('mmengine') is None:
        return _TorchOnlyRegistry(name, locations)
    import mmengine.registry as roots

    parent = getattr(
        roots,
        {
            'model': 'MODELS',
            'hook': 'HOOKS',
            'dataset': 'DATASETS',
            'transform': 'TRANSFORMS',
            'metric': 'METRICS',
        }[name],
    )
    return roots.Registry(name, parent=parent, scope='mmwcc', locations=locations)


MODELS = _registry('model', ['mmwcc.quantizers', 'mmwcc.layers', 'mmwcc.inference', 'mmwcc.models'])
HOOKS = _registry('hook', ['mmwcc.engine.hooks'])
DATASETS = _registry('dataset', ['mmwcc.datasets'])
TRANSFORMS = _registry('transform', ['mmwcc.datasets'])
METRICS = _registry('metric', ['mmwcc.evaluation'])


def find_model(kind):
    """Return what a ``type`` of :data:`MODELS` refers to.

    A name is looked up as it would be if it were built now, in the scope of the config.

    Args:
        kind: The value of a ``type``.

    Returns:
        The class or function, or None if nothing has this name.
    """
    if not isinstance(kind, str):
        return kind
    if isinstance(MODELS, _TorchOnlyRegistry):
        return MODELS.get(kind)
    with MODELS.switch_scope_and_registry(None) as registry:
        return registry.get(kind)
