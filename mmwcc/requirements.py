"""What parts of mmwcc need beyond torch, and what to say if it is not installed."""

from __future__ import annotations

import importlib.abc
import sys
from importlib.util import find_spec

__all__ = ['ROOMS_WITH_MMENGINE', 'apply', 'require']

ROOMS_WITH_MMENGINE = frozenset(
    (
        'checkpoint',
        'compressed_config',
        'datasets',
        'engine',
        'evaluation',
        'ladder',
        'models',
        'presets',
        'reports',
        'utils',
        'zoo',
    )
)
"""Parts of mmwcc that cannot be imported without mmengine."""

_EXTRAS = dict(
    mmengine='openmmlab',
    onnx='onnx',
    onnxruntime='onnx',
    onnxscript='onnx',
    openvino='openvino',
    safetensors='onnx',
)


def require(package: str, owner: str) -> None:
    """Check that an optional package is installed.

    Args:
        package: The package.
        owner: What needs it. The message begins with it.

    Raises:
        ModuleNotFoundError: If it is not. The message says how to install it.
    """
    if find_spec(package) is None:
        raise ModuleNotFoundError(
            f'{owner} needs {package}, which is not installed. Run `pip install '
            f"'mmwcc[{_EXTRAS[package]}]'`.",
            name=package,
        )


def apply() -> None:
    """Let imports of parts that need mmengine say so where it is missing. Idempotent."""
    if not any(isinstance(finder, _Refusal) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Refusal())


class _Refusal(importlib.abc.MetaPathFinder):
    """An import finder that finds nothing, but refuses what could not be imported anyway."""

    def find_spec(self, fullname, path=None, target=None):
        package, _, room = fullname.partition('.')
        if package == 'mmwcc' and room in ROOMS_WITH_MMENGINE:
            require('mmengine', fullname)
        return None
