"""Exact selection in numba: the threshold of each image by its digits, as a radix sort would, without sorting."""
from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from .memory import empty
from .threads import fork, thread_count

__all__ = ['select', 'select_kernel']

_NAN = np.int32(0x7FC00000)  # ranks above infinity
_SHIFTS = (20, 10, 0)  # of the 11, 10 and 10 bits that a non-negative float has beside its sign


@numba.njit(cache=True, nogil=True)
def _key(bits):
    """Return an integer that orders like the magnitude of the float, all NaN alike."""
    bits &= np.int32(0x7FFFFFFF)
    return min(bits, _NAN) if bits > np.int32(0x7F800000) else bits


@numba.njit(cache=True, nogil=True)
def _select_images(begin, end, norms, k, slot):
    counts, close = np.empty(2048, np.int64), np.empty(norms.shape[1], np.int32)
    for image in range(begin, end):
        bits, rows = norms[image], slot[image]
        for n in range(bits.size):
            close[n] = _key(bits[n])
        # The digits of the k-th largest key, highest first: `size` keys are `close`, they have all digits so far, and
        # `wanted` of them are still to be kept.
        threshold, wanted, size = np.int32(0), k, bits.size
        for shift in _SHIFTS:
            counts[:] = 0
            for n in range(size):
                counts[(close[n] >> shift) & 2047] += 1
            digit = 2047
            while counts[digit] < wanted:
                wanted -= counts[digit]
                digit -= 1
            threshold |= np.int32(digit << shift)
            found = 0
            for n in range(size):
                close[found] = close[n]
                found += (close[n] >> shift) & 2047 == digit
            size = found
        row = np.int32(0)
        for n in range(bits.size):
            key = _key(bits[n])
            keep = key > threshold
            if key == threshold and wanted > 0:
                keep, wanted = True, wanted - 1
            rows[n] = row if keep else np.int32(-1)
            row += np.int32(keep)


@numba.njit(cache=True, nogil=True)
def select_kernel(threads, norms, k, slot):
    """Write the row of each of the ``k`` positions of largest norm of each image, -1 elsewhere; float32 and int32."""
    fork(_select_images, len(norms), min(threads, len(norms)), (norms.view(np.int32), k, slot))


def select(norms: Tensor, k: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.select` of float32 norms."""
    slot = empty(tuple(norms.shape), dtype=torch.int32)
    select_kernel(thread_count(len(norms)), norms.detach().contiguous().numpy(), k, slot.numpy())
    return slot
