"""Tensors and NumPy arrays over the same memory."""
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ['as_map', 'empty', 'empty_like']

_LINE = 64  # bytes of a cache line
_LARGE = 1 << 22  # bytes from which NumPy requests huge pages


def empty(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return an uninitialized tensor at the start of a cache line, in huge pages if large and the system has them.

    A large new tensor costs more in page faults than in writing it: 64 MB take 36 ms in pages of 4 kB and 8 ms in huge
    ones (two Zen 5 cores, Linux with huge pages on request). NumPy requests them, torch does not.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < _LARGE:
        return torch.empty(shape, dtype=dtype)
    memory = np.empty(size + _LINE, np.uint8)
    first = -memory.ctypes.data % _LINE
    return torch.from_numpy(memory[first:first + size]).view(dtype).view(shape)


def empty_like(x: Tensor) -> Tensor:
    """Return an uninitialized float32 tensor of the shape of ``x``, and of its strides if it is dense."""
    return empty((x.numel(), )).as_strided(x.shape, torch.empty_like(x, device='meta').stride())


def as_map(x: Tensor) -> tuple[np.ndarray, bool]:
    """Return the values of a map (B, C, H, W) as they lie in memory, and whether that is channels_last.

    A map in neither memory format is copied to channels_last.
    """
    x = x.detach()
    if x.is_contiguous() and x.shape[1] > 1:
        return x.flatten().numpy(), False
    return x.permute(0, 2, 3, 1).contiguous().flatten().numpy(), True
