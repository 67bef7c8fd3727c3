"""Tensors and NumPy arrays over the same memory, and the reuse of large tensors' memory."""

from __future__ import annotations

import math
import weakref

import numpy as np
import torch
from torch import Tensor

__all__ = ['address_of', 'array_of', 'as_map', 'empty', 'empty_like', 'values_of']

_LINE = 64  # bytes of a cache line
_LARGE = 1 << 22  # bytes from which NumPy requests huge pages, and from which memory is reused
_KEPT = 1 << 28  # bytes of freed memory that are kept, at most
_FORMATS = {
    getattr(torch, name): np.dtype(name).str
    for name in ('float32', 'float64', 'int8', 'uint8', 'int32', 'int64')
}
_freed: dict[int, np.ndarray] = {}  # by address, latest last; each change is atomic


def empty(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return an uninitialized tensor that starts at a cache line, in huge pages if it is large.

    Huge pages depend on the system. Page faults of a large new tensor cost more than writing it:
    for 64 MB, 36 ms in pages of 4 kB and 2 to 8 ms in huge ones, which NumPy requests and torch
    does not (two Zen 5 cores, Linux with huge pages on request). Besides, glibc gives each tensor
    above 32 MB back to the system when it is freed. So the memory of a freed tensor serves the next
    one of the same size. Up to 256 MB are kept, the most recently freed.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < _LARGE:
        return torch.empty(shape, dtype=dtype)
    memory = _take(size + _LINE)
    first = -memory.ctypes.data % _LINE
    # The tensor keeps this array alive, and the array the memory.
    part = memory[first : first + size]
    weakref.finalize(part, _keep, memory).atexit = False
    # Set the storage instead of taking a view: autograd forbids writing in place to a result of an
    # operator that is a view.
    return torch.empty(0, dtype=dtype).set_(
        torch.from_numpy(part).untyped_storage(),
        0,
        shape,
        torch.empty(shape, device='meta').stride(),
    )


def _take(size: int) -> np.ndarray:
    """Return memory of a size: that of a freed tensor if there is any, else new memory."""
    for place, memory in reversed(list(_freed.items())):
        mine = memory.nbytes == size and _freed.pop(place, None) is memory
        if mine:
            return memory
    return np.empty(size, np.uint8)


def _keep(memory: np.ndarray) -> None:
    """Keep the memory of a freed tensor, and let go of what was freed longest ago if need be."""
    if memory.nbytes > _KEPT:
        return
    _freed[memory.ctypes.data] = memory
    excess = sum(memory.nbytes for memory in list(_freed.values())) - _KEPT
    for place, memory in list(_freed.items()):
        if excess > 0 and _freed.pop(place, None) is not None:
            excess -= memory.nbytes


def empty_like(x: Tensor) -> Tensor:
    """Return an uninitialized float32 tensor of the shape of ``x``, and of its strides if dense."""
    if x.numel() * x.itemsize < _LARGE:
        return torch.empty_like(x, dtype=torch.float32)
    storage = empty((x.numel(),)).untyped_storage()
    return torch.empty(0).set_(storage, 0, x.shape, torch.empty_like(x, device='meta').stride())


def as_map(x: Tensor) -> tuple[Tensor, bool]:
    """Return a map (B, C, H, W) without gaps in memory, and whether it is channels_last.

    A map in neither memory format is copied to channels_last.
    """
    if x.is_contiguous() and x.shape[1] > 1:
        return x, False
    return x.contiguous(memory_format=torch.channels_last), True


def address_of(x: Tensor) -> np.uintp:
    """Return the address of the first value of a tensor.

    The tensor must outlive every use of the address.
    """
    return np.uintp(_place(x))


def _place(x: Tensor) -> int:
    """Return the address of a tensor.

    Raises:
        RuntimeError: If its memory was freed, as happens to a parameter that FSDP has split.
    """
    place = x.data_ptr()
    if not place and x.numel():
        raise RuntimeError(
            f'mmwcc: a tensor of shape {tuple(x.shape)} has no memory, its storage '
            'was freed. Call the module that FSDP wraps, not a part of it: its '
            'forward gathers the parameters.'
        )
    return place


class _Memory:
    """The memory of a tensor, described in the way that NumPy asks for."""

    __slots__ = ('owner', '__array_interface__')

    def __init__(self, x: Tensor, shape: tuple[int, ...]) -> None:
        self.owner = x  # the array keeps this object alive, and the object the tensor
        self.__array_interface__ = dict(
            version=3, data=(_place(x), False), shape=shape, typestr=_FORMATS[x.dtype]
        )


def array_of(x: Tensor, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """View a contiguous tensor as an array, or its memory from the first value on in another shape.

    ``Tensor.numpy`` does so too. But it forbids for good that the storage is resized, which FSDP
    does with the storages of parameters.
    """
    return np.asarray(_Memory(x, x.shape if shape is None else shape))


def values_of(x: Tensor) -> np.ndarray:
    """View a tensor without gaps in memory as the flat array of its values, in memory order."""
    return array_of(x, (x.numel(),))
