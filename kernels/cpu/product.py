"""Products of float32 rows with a kernel in oneDNN, which lays kernels out in its own way.

For a usual layer, reordering the kernel to its layout takes a tenth of the time of the product. So
the reordered kernel is kept for the next call, together with checksums of the values that it was
made from. The checksums are computed at every call, in a third of that time. This is necessary
because a kernel can change without leaving a trace in its tensor, for example through ``.data``.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..product import plain_product
from .jit import jit
from .memory import values_of
from .threads import fork, thread_count

__all__ = ['multiply_rows']

_KEPT = 1 << 28  # bytes of kernels that are kept, at most
_PIECE, _CHECKSUMS = 1 << 14, 128  # values that a thread checks at a time, and their checksums
_FACTOR = np.uint32(0x9E3779B1)
# By address and shape, the one used last at the end.
_prepared: OrderedDict[tuple, tuple[bytes, Tensor]] = OrderedDict()
_jit = jit()


@_jit
def _check(values, sums):
    """Compute checksums of 32-bit integers. Every 128th value goes into the same one.

    Each step is a bijection of the sum and of the value. So a change of a single value never goes
    unseen, and changes of several values in one sum go unseen 1 time in 2**32. The rotation lets
    high bits, such as signs, act on low ones.
    """
    sums[:] = 0
    whole = values.size // _CHECKSUMS * _CHECKSUMS
    for first in range(0, whole, _CHECKSUMS):
        for n in range(_CHECKSUMS):
            mixed = (sums[n] ^ values[first + n]) * _FACTOR
            sums[n] = (mixed << np.uint32(13)) | (mixed >> np.uint32(19))
    for n in range(whole, values.size):
        sums[n - whole] = (sums[n - whole] ^ values[n]) * _FACTOR


@_jit
def _check_pieces(begin, end, values, sums):
    """Compute the checksums of pieces of a kernel."""
    for piece in range(begin, end):
        _check(values[piece * _PIECE :][:_PIECE], sums[piece])


@_jit
def _check_kernel(count, threads, *arguments):
    """Run :func:`_check_pieces` on all pieces."""
    fork(_check_pieces, count, threads, arguments)


def _checksums(weight: Tensor) -> bytes:
    """Compute the checksums of all values of a kernel, piece by piece on all threads."""
    values = values_of(weight).view(np.uint32)
    count = -(-values.size // _PIECE)
    sums = np.empty((count, _CHECKSUMS), np.uint32)
    _check_kernel(count, thread_count(count), values, sums)
    return sums.tobytes()


@lru_cache
def _has_layout() -> bool:
    """Tell whether oneDNN is present and multiplies correctly by kernels in its own layout."""
    rows, weight = torch.ones(32, 16), torch.arange(256.0).reshape(16, 16)
    try:
        y = _multiply(rows, torch.ops.mkldnn._reorder_linear_weight(weight))
    except (AttributeError, RuntimeError):
        return False
    return torch.equal(y, rows @ weight.t())


def _multiply(rows: Tensor, prepared: Tensor) -> Tensor:
    """Multiply rows by a kernel that was reordered to the layout of oneDNN."""
    return torch.ops.mkldnn._linear_pointwise(rows, prepared, None, 'none', [], '')


def _prepare(weight: Tensor) -> Tensor:
    """Return the kernel in oneDNN's layout, reordered anew only if its values have changed."""
    key, checksums = (weight.data_ptr(), *weight.shape), _checksums(weight)
    known = _prepared.pop(key, None)
    if known is None or known[0] != checksums:
        _make_room(weight.nbytes)
        known = checksums, torch.ops.mkldnn._reorder_linear_weight(weight)
    _prepared[key] = known
    return known[1]


def _make_room(size: int) -> None:
    """Forget the kernels that were used longest ago, if ``size`` more bytes would be too many."""
    excess = sum(4 * outputs * inputs for _, outputs, inputs in list(_prepared)) + size - _KEPT
    while excess > 0 and _prepared:
        (_, outputs, inputs), _ = _prepared.popitem(last=False)
        excess -= 4 * outputs * inputs


def multiply_rows(rows: Tensor, weight: Tensor) -> Tensor:
    """Compute :func:`mmwcc.kernels.multiply_rows` of float32 rows."""
    if not _has_layout():
        return plain_product(rows, weight)
    return _multiply(rows, _prepare(weight.flatten(1).contiguous()))
