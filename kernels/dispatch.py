"""Which implementation of an operator runs on the CPU: numba where it can, the torch reference otherwise."""
from __future__ import annotations

import os
from functools import lru_cache, wraps
from importlib import import_module
from importlib.util import find_spec

import torch

from .library import LIBRARY, without_autocast

__all__ = ['accelerate_on_cpu']

PATHS = ('reference', 'cpu')


@lru_cache
def _chosen_path() -> str:
    path = os.environ.get('MMWCC_KERNELS', 'cpu')
    if path not in PATHS:
        raise ValueError(f"MMWCC_KERNELS must be one of {', '.join(PATHS)}, got {path!r}. Unset it to let mmwcc "
                         'choose.')
    if path == 'cpu' and find_spec('numba') is None:
        if 'MMWCC_KERNELS' in os.environ:
            raise ModuleNotFoundError('MMWCC_KERNELS=cpu needs numba, which is not installed. Run `pip install '
                                      "'mmwcc[cpu]'`, or unset MMWCC_KERNELS.")
        return 'reference'
    return path


def accelerate_on_cpu(name: str, module: str, reference, values: int = 0) -> None:
    """Let float32 calls of ``mmwcc::<name>`` on the CPU run ``mmwcc.kernels.cpu.<module>.<name>``, imported then.

    ``MMWCC_KERNELS=reference`` keeps the reference, as do a missing numba, other dtypes, and empty or overlapping
    tensors.

    Args:
        name: Name of the operator.
        module: Module of :mod:`mmwcc.kernels.cpu` that holds a function of that name.
        reference: The torch implementation.
        values: Index of the argument that decides.
    """

    plain = without_autocast(reference)

    @wraps(reference)
    def run(*args):
        x = args[values]
        if x.dtype == torch.float32 and _is_dense(x) and _chosen_path() == 'cpu':
            return getattr(import_module(f'.cpu.{module}', __package__), name)(*args)
        return plain(*args)

    LIBRARY.impl(name, run, 'CPU')


def _is_dense(x: torch.Tensor) -> bool:
    return x.numel() > 0 and torch.ops.aten.is_non_overlapping_and_dense(x)
