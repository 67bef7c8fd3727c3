"""Changes that mmwcc makes to an installed mmengine so that stock OpenMMLab programs work with it.

:func:`apply` runs at ``import mmwcc``. It imports neither mmengine nor torch. A module that is
already loaded is changed at once; any other is changed right after it has been loaded. All changes
are additions or repairs:

1. ``mmwcc::path/to/config.py`` works in ``_base_`` and in ``mmengine.hub``, which otherwise know a
   fixed list of packages (``MODULE2PACKAGE``).
2. ``is_installed`` and ``get_installed_path`` of mmengine look for the module itself. The originals
   need ``pkg_resources``, which setuptools 82 removed, and they return a folder that does not exist
   for editable installs. In the maintained forks, ``mmseg::`` bases need this: their distribution
   is not called mmsegmentation.
3. From version 2.6 on, ``torch.load`` refuses classes it does not know. Among them are classes in
   the checkpoints that mmengine itself writes, so these could be neither resumed nor tested.
   Exactly those classes are allowed: mmengine's ``HistoryBuffer`` with its four statistics, and
   NumPy arrays and scalars of numbers.
4. ``from mmwcc.presets import compress`` works in pure-Python configs. mmengine does not execute
   the imports of such a config, so otherwise nothing imported could be called.
5. ``mmengine.analysis`` counts mmwcc's operators, which it would otherwise count as zero. So do
   ``get_model_complexity_info`` and ``tools/analysis_tools/get_flops.py`` of the OpenMMLab
   projects, which use it.
6. Optimizer wrappers load states from before this release, in which clips were scalars.
7. Checkpoints ending in .safetensors are read as safetensors.
8. What a checkpoint records about its compression reaches the model that loads it. mmengine hands
   over the weights alone. A dense model refuses the checkpoint of a compressed one.
9. Every run of a compressed model has ``mmwcc.CompressionCheckHook``, also where the config does
   not name it. A model cannot bring a hook into its runner.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import pickle
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

from mmwcc import requirements

__all__ = ['apply']


def apply() -> None:
    """Make the changes listed above, now or once mmengine and torch are imported. Idempotent."""
    for name, change in _CHANGES.items():
        if name in sys.modules:
            change(sys.modules[name])
    if not any(isinstance(finder, _ChangeAfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ChangeAfterImport())


def _prepare_configs(config_utils) -> None:
    """Change ``mmengine.config.utils``, which the config reader takes its functions from."""
    config_utils.MODULE2PACKAGE.setdefault('mmwcc', 'mmwcc')
    _import_presets(config_utils)


def _import_presets(config_utils) -> None:
    """Execute imports of ``mmwcc.presets`` in pure-Python configs; other imports stay lazy."""
    original = getattr(config_utils, '_is_builtin_module', None)
    if original is None or hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def is_builtin_module(name: str) -> bool:
        return name == 'mmwcc.presets' or original(name)

    for module in filter(None, (config_utils, sys.modules.get('mmengine.config.config'))):
        module._is_builtin_module = is_builtin_module


def _repair_lookups(package_utils) -> None:
    """Change ``mmengine.utils.package_utils`` and every module that has imported its functions."""
    importers = ('mmengine.utils', 'mmengine.config.config', 'mmengine.hub.hub')
    for module in (
        package_utils,
        *(sys.modules[name] for name in importers if name in sys.modules),
    ):
        for function in (is_installed, get_installed_path):
            if hasattr(module, function.__name__):
                setattr(module, function.__name__, function)


def is_installed(package: str) -> bool:
    """Return whether a package can be imported or is an installed distribution.

    Args:
        package: Name of a module (``mmseg``) or of its distribution (``mmsegmentation``).
    """
    return any(map(_module_origin, _module_names(package))) or _has_distribution(package)


def get_installed_path(package: str) -> str:
    """Return the folder of an installed package, editable or not.

    Args:
        package: Name of a module (``mmseg``) or of its distribution (``mmsegmentation``).

    Raises:
        importlib.metadata.PackageNotFoundError: If there is no such package.
    """
    for name in _module_names(package):
        origin = _module_origin(name)
        if origin:
            return os.path.dirname(origin)
    raise metadata.PackageNotFoundError(package)


def _module_names(package: str) -> list[str]:
    """Return the names under which a package may be imported, most likely first."""
    config_utils = sys.modules.get('mmengine.config.utils')
    packages = config_utils.MODULE2PACKAGE if config_utils else {}
    names = [module for module, distribution in packages.items() if distribution == package]
    with contextlib.suppress(metadata.PackageNotFoundError):
        names += (metadata.distribution(package).read_text('top_level.txt') or '').split()
    return [package, *names]


def _module_origin(name: str) -> str | None:
    """Find the file of a top-level package without importing it; None if it cannot be imported."""
    try:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
    except ValueError:  # a module put into sys.modules by hand has no spec
        return None
    return spec.origin if spec is not None and spec.has_location else None


def _has_distribution(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _allow_checkpoint_classes(_) -> None:
    """Change ``torch.serialization`` once it and mmengine's ``HistoryBuffer`` are both loaded."""
    serialization = sys.modules.get('torch.serialization')
    history_buffer = sys.modules.get('mmengine.logging.history_buffer')
    if serialization is None or history_buffer is None or _version(sys.modules['torch']) < (2, 6):
        return
    import numpy as np

    try:
        from numpy._core import multiarray
    except ImportError:  # NumPy 1
        from numpy.core import multiarray  # type: ignore[no-redef]  # the same module by its older name
    classes = [history_buffer.HistoryBuffer, np.ndarray, np.dtype]
    classes += [
        type(np.dtype(name))
        for name in ('bool', 'uint8', 'uint32', 'int32', 'int64', 'float32', 'float64')
    ]
    # Every entry is a pair with the name. A bare class would go when somebody else leaves a block
    # `with safe_globals([...])` that lists it, as mmengine 0.10.12 does at every load: the exit
    # removes what the block lists, also what was there before.
    allowed = [(entry, f'{entry.__module__}.{entry.__qualname__}') for entry in classes]
    # NumPy 1 and NumPy 2 write different paths for the same two functions, and a checkpoint may
    # come from either.
    allowed += [
        (getattr(multiarray, function), f'numpy.{core}.multiarray.{function}')
        for function in ('_reconstruct', 'scalar')
        for core in ('core', '_core')
    ]
    if getattr not in serialization.get_safe_globals():
        # The pickle stores HistoryBuffer.min and the like as getattr(HistoryBuffer, 'min').
        allowed.append((_get_statistic, 'builtins.getattr'))
    serialization.add_safe_globals(allowed)


def _get_statistic(owner: type, name: str):
    """Replace ``getattr`` while a checkpoint loads; allow only statistics of ``HistoryBuffer``."""
    if (
        owner is sys.modules['mmengine.logging.history_buffer'].HistoryBuffer
        and name in _STATISTICS
    ):
        return getattr(owner, name)
    raise pickle.UnpicklingError(
        f'torch.load: attribute {name!r} of {owner!r} is not among what mmengine writes to '
        'checkpoints, so it was refused. If you trust the file, load it with '
        'weights_only=False, or set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1.'
    )


_STATISTICS = ('min', 'max', 'current', 'mean')


def _count_operators(complexity_analysis) -> None:
    """Change ``mmengine.analysis.complexity_analysis``: add mmwcc's operators to its tables."""
    operators = (f'mmwcc::{name}' for name in importlib.import_module('mmwcc.kernels').COSTS)
    for operator in (_QUANTIZED_PRODUCT, *operators):
        complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS.setdefault(
            operator, functools.partial(_count, operator)
        )
    for operator in _PRODUCTS:
        complexity_analysis._DEFAULT_SUPPORTED_ACT_OPS.setdefault(
            operator, complexity_analysis.generic_activation_jit()
        )


def _count(operator: str, inputs: list, outputs: list):
    # Imported when the first operator is counted, because mmengine may be loaded while the packages
    # of mmwcc are still being loaded.
    return importlib.import_module('mmwcc.cost.counters').HANDLERS[operator](inputs, outputs)


_QUANTIZED_PRODUCT = 'prim::PythonOp._QuantizedProduct'
_PRODUCTS = (_QUANTIZED_PRODUCT, 'mmwcc::int8_linear', 'mmwcc::multiply_rows')


def _upgrade_optimizer_state(optimizer_wrapper) -> None:
    """Let optimizers load states from before this release.

    This changes ``mmengine.optim.optimizer.optimizer_wrapper``.
    """
    wrapper = optimizer_wrapper.OptimWrapper
    construct = wrapper.__init__
    if hasattr(construct, '__wrapped__'):
        return

    @functools.wraps(construct)
    def construct_and_upgrade(self, *args, **kwargs) -> None:
        construct(self, *args, **kwargs)
        if hasattr(self.optimizer, 'register_load_state_dict_pre_hook'):
            self.optimizer.register_load_state_dict_pre_hook(_upgraded)

    wrapper.__init__ = construct_and_upgrade


def _upgraded(optimizer, state_dict: dict) -> dict:
    return importlib.import_module('mmwcc.quantizers').upgrade_optimizer_state(
        optimizer, state_dict
    )


def _version(module) -> tuple[int, int]:
    major, minor = str(module.__version__).split('.')[:2]
    return int(major), int(minor)


def _register_safetensors(checkpoint) -> None:
    """Let the loader of checkpoints read local .safetensors files as safetensors."""
    # mmengine tries its patterns in reverse alphabetical order. This one comes after the patterns
    # of all addresses and before that of local files. It matches any prefix because a local path
    # may contain colons, in a Windows drive or a time stamp.
    checkpoint.CheckpointLoader.register_scheme(
        r'(?s:.*)\.safetensors$', loader=load_from_safetensors, force=True
    )


def _change_checkpoints(checkpoint) -> None:
    """Change ``mmengine.runner.checkpoint``, through which all checkpoints are loaded."""
    _register_safetensors(checkpoint)
    _carry_stamps(checkpoint)
    _protect_dense_models(checkpoint)


def _carry_stamps(checkpoint) -> None:
    """Let the loader of checkpoints hand over what they record about their compression."""
    loader = checkpoint.CheckpointLoader
    original = loader.load_checkpoint
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def load_checkpoint(cls, *args, **kwargs):
        return importlib.import_module('mmwcc.checkpoint').carry_stamp(original(*args, **kwargs))

    loader.load_checkpoint = classmethod(load_checkpoint)


def _protect_dense_models(checkpoint) -> None:
    """Let runners, ``init_model`` and inferencers refuse compressed weights for a dense model."""
    original = checkpoint.load_state_dict
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def load_state_dict(module, state_dict, *args, **kwargs) -> None:
        importlib.import_module('mmwcc.compression').refuse_dense_model(module, state_dict)
        original(module, state_dict, *args, **kwargs)

    checkpoint.load_state_dict = load_state_dict


def _check_runs(runner_module, name: str) -> None:
    """Change a class of runners: their runs of compressed models check checkpoints."""
    runner = getattr(runner_module, name)
    register = runner.register_hooks
    if hasattr(register, '__wrapped__'):
        return

    @functools.wraps(register)
    def register_and_check(self, *args, **kwargs) -> None:
        register(self, *args, **kwargs)
        importlib.import_module('mmwcc.engine.hooks').add_check(self)

    runner.register_hooks = register_and_check


def load_from_safetensors(filename: str, map_location=None) -> dict:
    """Load a .safetensors file as ``state_dict``, and the JSON file next to it as ``meta``.

    Args:
        filename: Path of the file.
        map_location: Device of the weights, as in :func:`torch.load`. Defaults to None, the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If safetensors is missing.
        RuntimeError: If the JSON belongs to other weights.
    """
    requirements.require('safetensors', f'The checkpoint {filename}')
    from safetensors.torch import load_file

    filename = os.path.expanduser(filename)
    if not os.path.isfile(filename):
        raise FileNotFoundError(f'{filename} does not exist. Check the path.')
    content, beside = {}, f'{os.path.splitext(filename)[0]}.json'
    if os.path.isfile(beside):
        with open(beside, encoding='utf-8') as stream:
            content = json.load(stream)
        with open(filename, 'rb') as stream:
            digest = hashlib.sha256(stream.read()).hexdigest()
        if content.get('sha256', digest) != digest:
            raise RuntimeError(
                f'{beside} describes other weights than those in {filename}: their sha256 is '
                f'{digest}, not {content["sha256"]}. Copy both files again, or publish them again.'
            )
    return dict(
        meta=content.get('meta', {}), state_dict=load_file(filename, str(map_location or 'cpu'))
    )


_CHANGES: dict[str, Callable[[Any], None]] = {
    'mmengine.config.utils': _prepare_configs,
    'mmengine.utils.package_utils': _repair_lookups,
    'mmengine.logging.history_buffer': _allow_checkpoint_classes,
    'mmengine.runner.checkpoint': _change_checkpoints,
    'mmengine.runner.runner': functools.partial(_check_runs, name='Runner'),
    'mmengine.runner._flexible_runner': functools.partial(_check_runs, name='FlexibleRunner'),
    'mmengine.analysis.complexity_analysis': _count_operators,
    'mmengine.optim.optimizer.optimizer_wrapper': _upgrade_optimizer_state,
    'torch.serialization': _allow_checkpoint_classes,
}


class _ChangeAfterImport(importlib.abc.MetaPathFinder):
    """An import finder that applies the change of a module in ``_CHANGES`` once it has executed."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in _CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_change(module) -> None:
            execute(module)
            _CHANGES[fullname](module)

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]  # only of this loader
        return spec
