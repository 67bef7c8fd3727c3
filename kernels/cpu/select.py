"""Exact selection in numba: the threshold of each image, digit by digit, without sorting.

The digits are found as a radix sort would. Images are processed in pieces, so that one large image
keeps all threads busy. The counts of each piece tell where its rows begin. Results do not depend on
the number of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .jit import jit
from .memory import array_of, empty
from .threads import fork, thread_count

__all__ = ['select', 'select_kernel']

_INFINITY, _NAN = np.int32(0x7F800000), np.int32(0x7FC00000)
_HIGHEST, _LOWER = 20, (10, 0)  # shifts of the digits: 11, 10 and 10 bits below the sign
_DIGITS = 1 << 11
_PIECE = 1 << 12  # positions
_jit = jit()


@_jit
def _key(bits):
    """Return an integer that sorts like the magnitude of the float. NaN is the largest."""
    bits &= np.int32(0x7FFFFFFF)
    return _NAN if bits > _INFINITY else bits


@_jit
def _count_pieces(begin, end, bits, pieces, counts):
    """Count the highest digits of the keys of each piece."""
    counts[begin:end] = 0
    for n in range(begin, end):
        for value in bits[n // pieces, n % pieces * _PIECE :][:_PIECE]:
            counts[n, _key(value) >> _HIGHEST] += 1


@_jit
def _digit_of(counts, wanted):
    """Return the digit of the ``wanted``-th largest key, and how many keys of it are wanted.

    ``counts`` says how many keys have each digit.
    """
    digit = _DIGITS - 1
    while counts[digit] < wanted:
        wanted -= counts[digit]
        digit -= 1
    return digit, wanted


@_jit
def _collect_pieces(begin, end, bits, pieces, digits, close, sizes):
    """Collect the keys of each piece that share the highest digit of their image's threshold.

    Every key is written, but only a matching one advances ``found``. That needs no branch.
    """
    for n in range(begin, end):
        found, digit = 0, digits[n // pieces, 0]
        for value in bits[n // pieces, n % pieces * _PIECE :][:_PIECE]:
            key = _key(value)
            close[n, found] = key
            found += key >> _HIGHEST == digit
        sizes[n] = found


@_jit
def _find_thresholds(begin, end, pieces, counts, digits, candidates, thresholds, starts):
    """Find the threshold of each image from the keys that share its highest digit.

    ``candidates`` are these keys of each piece, and how many there are. Also find the first row of
    each piece, and how many keys equal to the threshold that piece keeps.
    """
    close, sizes = candidates
    lower = np.empty(_DIGITS, np.int64)
    for image in range(begin, end):
        highest, wanted = digits[image]
        threshold = highest << _HIGHEST
        for shift in _LOWER:
            lower[:] = 0
            for n in range(image * pieces, (image + 1) * pieces):
                for key in close[n, : sizes[n]]:
                    above = shift + 10  # where the digits begin that are known already
                    matches = key >> above == threshold >> above
                    lower[(key >> shift) & (_DIGITS - 1)] += matches
            digit, wanted = _digit_of(lower, wanted)
            threshold |= digit << shift
        row, thresholds[image] = 0, threshold
        for n in range(image * pieces, (image + 1) * pieces):
            above, ties = counts[n, highest + 1 :].sum(), 0
            for key in close[n, : sizes[n]]:
                above += key > threshold
                ties += key == threshold
            ties = min(ties, wanted)
            starts[n] = row, ties
            row, wanted = row + above + ties, wanted - ties


@_jit
def _number(keys, rows, begin, end, least, row):
    """Number the keys of ``begin ... end`` that are at least ``least``, and return the next row."""
    for p in range(np.uintp(begin), np.uintp(end)):
        keep = np.int32(_key(keys[p]) >= least)
        rows[p] = (row + np.int32(1)) * keep - np.int32(1)
        row += keep
    return row


@_jit
def _number_pieces(begin, end, bits, pieces, thresholds, starts, slot):
    """Write the slots of each piece.

    Up to the last tie that the piece may keep, keys equal to the threshold are kept. After it, only
    greater ones are.
    """
    for n in range(begin, end):
        image, first = n // pieces, n % pieces * _PIECE
        keys, threshold, (row, ties) = bits[image], np.int32(thresholds[image]), starts[n]
        last, end_of_ties = min(first + _PIECE, keys.size), first
        while ties > 0 and end_of_ties < last:
            ties -= _key(keys[end_of_ties]) == threshold
            end_of_ties += 1
        row = _number(keys, slot[image], first, end_of_ties, threshold, np.int32(row))
        _number(keys, slot[image], end_of_ties, last, threshold + np.int32(1), row)


@_jit
def select_kernel(threads, norms, k, slot):
    """Write the row of each of the ``k`` positions of largest norm of each image, -1 elsewhere.

    Norms are float32 and slots int32.
    """
    bits, batch = norms.view(np.int32), len(norms)
    pieces = (norms.shape[1] + _PIECE - 1) // _PIECE
    count = batch * pieces
    few, many = min(threads, batch), min(threads, count)
    counts, close = np.empty((count, _DIGITS), np.int32), np.empty((count, _PIECE), np.int32)
    digits, thresholds = np.empty((batch, 2), np.int64), np.empty(batch, np.int64)
    sizes, starts = np.empty(count, np.int64), np.empty((count, 2), np.int64)
    fork(_count_pieces, count, many, (bits, pieces, counts))
    for image in range(batch):
        digits[image] = _digit_of(counts[image * pieces : (image + 1) * pieces].sum(0), k)
    fork(_collect_pieces, count, many, (bits, pieces, digits, close, sizes))
    candidates = close, sizes
    fork(_find_thresholds, batch, few, (pieces, counts, digits, candidates, thresholds, starts))
    fork(_number_pieces, count, many, (bits, pieces, thresholds, starts, slot))


def select(norms: Tensor, k: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.select` of float32 norms."""
    slot = empty(tuple(norms.shape), dtype=torch.int32)
    select_kernel(thread_count(norms.numel()), array_of(norms.contiguous()), k, array_of(slot))
    return slot
