"""Choice of implementation: numba on the CPU, Triton on the GPU, otherwise the torch reference.

``MMWCC_KERNELS`` forces a path for the whole process. Its values are ``reference``, ``cpu`` (numba)
and ``triton``. For tensors on the CPU, ``triton`` needs Triton's interpreter
(``TRITON_INTERPRET=1``). A device that the forced path does not serve uses the reference. The
variable is read at the first call.

Numba and Triton only change speed. They may fail to run because they are not installed, broken, too
old or without a compiler for the processor. The process then goes on with the references and says
so in one warning. If the path was forced, it raises instead.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from importlib import import_module

import torch

from .library import LIBRARY, without_autocast

__all__ = ['accelerate']

PATHS = dict(reference='torch', cpu='numba', triton='Triton')
"""Name of the package behind each path, by the value of ``MMWCC_KERNELS``."""

NATIVE = dict(cpu='cpu', cuda='triton')
"""The path of each device unless one is forced."""

DTYPES = dict(cpu=(torch.float32,), triton=(torch.float32, torch.bfloat16, torch.float16))
"""Floating dtypes that each path can compute. The reference takes all others."""

_left: set[str] = set()  # paths that turned out not to run here


@cache
def chosen_path(device: str) -> str:
    """Return the path for tensors on ``device`` ('cpu' or 'cuda'), provided that it runs here.

    Raises:
        ValueError: If ``MMWCC_KERNELS`` names no path, or Triton for the CPU without its
            interpreter.
    """
    forced = os.environ.get('MMWCC_KERNELS')
    path = NATIVE[device] if forced is None else forced
    if path not in PATHS:
        raise ValueError(
            f'MMWCC_KERNELS must be one of {", ".join(PATHS)}, got {path!r}. Unset it to let mmwcc '
            'choose.'
        )
    if path == 'triton' and device == 'cpu' and os.environ.get('TRITON_INTERPRET') != '1':
        raise ValueError(
            'MMWCC_KERNELS=triton serves tensors on the CPU in the interpreter of Triton only, got '
            'a tensor on the CPU without TRITON_INTERPRET=1. Move the model to the GPU, or unset '
            'MMWCC_KERNELS.'
        )
    return path if path == 'triton' or path == device else 'reference'


@dataclass(frozen=True, eq=False)  # looked up at every call; identity is the fastest key
class Operator:
    """An operator that has kernels.

    Attributes:
        name: Its name in ``torch.ops.mmwcc``. The function that computes it has the same name.
        module: Name of the module in ``mmwcc.kernels.cpu`` and ``mmwcc.kernels.triton`` that holds
            that function.
        paths: The paths that have it.
        dtype: The dtype that the kernels take, if it is not a floating one.
    """

    name: str
    module: str
    paths: tuple[str, ...] = ('cpu', 'triton')
    dtype: torch.dtype | None = None


@cache
def kernel_of(operator: Operator, device: str, dtype: torch.dtype) -> Callable | None:
    """Return the kernel of an operator for a device and dtype, or None to use the reference."""
    path = chosen_path(device)
    served = dtype == operator.dtype if operator.dtype else dtype in DTYPES.get(path, ())
    if path in _left or path not in operator.paths or not served:
        return None
    try:
        return getattr(import_module(f'.{path}.{operator.module}', __package__), operator.name)
    except Exception as error:  # a broken package may raise anything
        leave(path, error)
    return None


def leave(path: str, error: Exception) -> None:
    """Stop using a path that does not run here, use the references instead, and say so once.

    Raises:
        RuntimeError: If ``MMWCC_KERNELS`` forces the path.
    """
    reason = f'the {PATHS[path]} kernels do not run here ({type(error).__name__}: {error})'
    install = f"Install what they need with `pip install -U 'mmwcc[{path}]'`"
    if os.environ.get('MMWCC_KERNELS') == path:
        raise RuntimeError(
            f'MMWCC_KERNELS={path}: {reason}. {install}, or unset MMWCC_KERNELS to '
            'let the torch reference run in their place.'
        ) from error
    if path not in _left:
        _left.add(path)
        kernel_of.cache_clear()
        warnings.warn(
            f'mmwcc: {reason}. The torch reference runs in their place: the same '
            f'results, several times slower. {install}, or set MMWCC_KERNELS=reference to '
            'choose it without this warning.',
            RuntimeWarning,
            stacklevel=2,
        )


def accelerate(
    name: str,
    module: str,
    reference,
    values: int = 0,
    dtype: torch.dtype | None = None,
    paths: tuple[str, ...] = ('cpu', 'triton'),
) -> None:
    """Let ``mmwcc::<name>`` run the function of that name in a kernel module.

    This is ``cpu.<module>`` or ``triton.<module>``. The module is imported at the first call. The
    reference runs instead if the path has no kernel for the dtype, if the path does not run here,
    if the tensor is empty, or if the kernel returns NotImplemented.

    Args:
        name: Name of the operator.
        module: As in :class:`Operator`.
        reference: The torch implementation.
        values: Index of the argument whose device and dtype decide.
        dtype: As in :class:`Operator`.
        paths: As in :class:`Operator`.
    """
    operator, plain = Operator(name, module, paths, dtype), without_autocast(reference)

    @wraps(reference)
    def run(*args):
        x = args[values]
        kernel = kernel_of(operator, x.device.type, x.dtype) if x.numel() else None
        if kernel is None:
            return plain(*args)
        try:
            result = kernel(*args)
        except Exception as error:
            result = plain(*args)  # raises too if the arguments are at fault, not the path
            leave(chosen_path(x.device.type), error)
            return result
        return plain(*args) if result is NotImplemented else result

    torch.library.register_kernel(
        f'mmwcc::{name}', ('cpu', 'cuda'), run, lib=LIBRARY
    )  # never traced
