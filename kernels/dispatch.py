"""Which implementation of an operator runs: numba on the CPU, Triton on the GPU, the torch reference otherwise.

``MMWCC_KERNELS`` forces a path for the whole process: ``reference``, ``cpu`` (numba) or ``triton``, which for tensors
on the CPU needs Triton's interpreter (``TRITON_INTERPRET=1``). Devices that a forced path does not serve use the
reference. The variable is read at the first call.
"""
from __future__ import annotations

import os
from functools import lru_cache, wraps
from importlib import import_module
from importlib.util import find_spec

import torch

from .library import LIBRARY, without_autocast

__all__ = ['accelerate']

PATHS = dict(reference=None, cpu='numba', triton='triton')
"""Paths by the value of ``MMWCC_KERNELS``, with the package that each needs."""

NATIVE = dict(cpu='cpu', cuda='triton')
"""The path of each device where none is forced."""

DTYPES = dict(cpu=(torch.float32, ), triton=(torch.float32, torch.bfloat16, torch.float16))
"""Floating dtypes that each path computes; the reference takes all others."""


@lru_cache
def chosen_path(device: str) -> str:
    """Return the path for tensors on ``device``, 'cpu' or 'cuda'.

    Raises:
        ValueError: If ``MMWCC_KERNELS`` names no path, or Triton for the CPU without its interpreter.
        ModuleNotFoundError: If the path it names needs a package that is not installed.
    """
    forced = os.environ.get('MMWCC_KERNELS')
    path = NATIVE[device] if forced is None else forced
    if path not in PATHS:
        raise ValueError(f"MMWCC_KERNELS must be one of {', '.join(PATHS)}, got {path!r}. Unset it to let mmwcc "
                         'choose.')
    package = PATHS[path]
    if package and find_spec(package) is None:
        if forced:
            raise ModuleNotFoundError(f'MMWCC_KERNELS={path} needs {package}, which is not installed. Run `pip install '
                                      f"'mmwcc[{path}]'`, or unset MMWCC_KERNELS.")
        return 'reference'
    if path == 'triton' and device == 'cpu' and os.environ.get('TRITON_INTERPRET') != '1':
        raise ValueError('MMWCC_KERNELS=triton serves tensors on the CPU in the interpreter of Triton only, got a '
                         'tensor on the CPU without TRITON_INTERPRET=1. Move the model to the GPU, or unset '
                         'MMWCC_KERNELS.')
    return path if path == 'triton' or path == device else 'reference'


def accelerate(name: str, module: str, reference, values: int = 0, dtype: torch.dtype | None = None,
               paths: tuple[str, ...] = ('cpu', 'triton')) -> None:
    """Let ``mmwcc::<name>`` run the function of that name in ``cpu.<module>`` or ``triton.<module>``, imported then.

    Where the path has no kernels for the dtype, or a tensor is empty, the reference runs.

    Args:
        name: Name of the operator.
        module: Module of :mod:`mmwcc.kernels.cpu` and ``mmwcc.kernels.triton`` that holds a function of that name.
        reference: The torch implementation.
        values: Index of the argument whose dtype decides.
        dtype: The dtype that kernels take, if not a floating one.
        paths: The paths that have it.
    """
    plain = without_autocast(reference)

    @lru_cache
    def implementation(device: str, kind: torch.dtype):
        path = chosen_path(device)
        served = kind == dtype if dtype else kind in DTYPES.get(path, ())
        if path not in paths or not served:
            return plain
        return getattr(import_module(f'.{path}.{module}', __package__), name)

    @wraps(reference)
    def run(*args):
        x = args[values]
        return (implementation(x.device.type, x.dtype) if x.numel() else plain)(*args)

    torch.library.register_kernel(f'mmwcc::{name}', ('cpu', 'cuda'), run, lib=LIBRARY)  # never traced
