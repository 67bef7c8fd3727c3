"""Exact selection on the GPU.

The threshold of each image is found digit by digit, as a radix sort would. The kept positions are
then numbered in ascending order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import configuration, launch

__all__ = ['select']

_COUNTS = ['positions', 'k', 'blocks']


@triton.jit
def _keys(norms_ptr, position, positions):
    """Return integers that sort like the magnitudes of the norms, and -1 past the end.

    All NaN are alike and above infinity.
    """
    bits = (
        tl.load(norms_ptr + position, mask=position < positions, other=0.0).to(
            tl.int32, bitcast=True
        )
        & 0x7FFFFFFF
    )
    return tl.where(position < positions, tl.where(bits > 0x7F800000, 0x7FC00000, bits), -1)


@triton.jit
def _digit_counts(keys, prefix, SHIFT: tl.constexpr):
    """Count how often each value of one 8-bit digit occurs, [256].

    Only keys whose higher digits are ``prefix`` count.
    """
    return tl.histogram(
        (keys >> SHIFT) & 255, 256, mask=(keys >= 0) & ((keys >> SHIFT >> 8) == prefix)
    )


@triton.jit
def _next_digit(counts, prefix, wanted):
    """Append to ``prefix`` the digit of the ``wanted``-th largest key.

    Return it, and how many keys with this prefix are wanted.
    """
    digit = tl.arange(0, 256)
    at_least = tl.cumsum(counts, 0, reverse=True)
    chosen = tl.sum((at_least >= wanted).to(tl.int32), 0) - 1
    return prefix * 256 + chosen, wanted - tl.sum(tl.where(digit > chosen, counts, 0), 0)


@triton.jit
def _ranks(keys, threshold, wanted, tied, kept):
    """Return the slots of a block, -1 where dropped, and how many keys tie and how many are kept.

    ``tied`` and ``kept`` count those before the block.
    """
    equal = (keys == threshold).to(tl.int32)
    first_ties = equal * ((tied + tl.cumsum(equal, 0)) <= wanted).to(tl.int32)
    keep = (keys > threshold).to(tl.int32) + first_ties
    return tl.where(keep > 0, kept + tl.cumsum(keep, 0) - 1, -1), tl.sum(equal, 0), tl.sum(keep, 0)


@triton.jit(do_not_specialize=_COUNTS)
def _select_kernel(norms_ptr, slot_ptr, positions, k, BLOCK: tl.constexpr):
    """Select in one image. Grid: (B,)."""
    norms_ptr += tl.program_id(0).to(tl.int64) * positions
    slot_ptr += tl.program_id(0).to(tl.int64) * positions
    threshold, wanted = 0, k
    for digit in tl.static_range(4):
        counts = tl.zeros((256,), tl.int32)
        for first in range(0, positions, BLOCK):
            keys = _keys(norms_ptr, first + tl.arange(0, BLOCK), positions)
            counts += _digit_counts(keys, threshold, 24 - 8 * digit)
        threshold, wanted = _next_digit(counts, threshold, wanted)
    tied, kept = 0, 0
    for first in range(0, positions, BLOCK):
        position = first + tl.arange(0, BLOCK)
        slot, ties, keeps = _ranks(
            _keys(norms_ptr, position, positions), threshold, wanted, tied, kept
        )
        tl.store(slot_ptr + position, slot, mask=position < positions)
        tied += ties
        kept += keeps


@triton.jit
def _known_digits(counts_ptr, k, DIGITS: tl.constexpr):
    """Return the first digits of the threshold, and how many keys with them are wanted."""
    prefix, wanted = 0, k
    for digit in tl.static_range(DIGITS):
        prefix, wanted = _next_digit(
            tl.load(counts_ptr + digit * 256 + tl.arange(0, 256)), prefix, wanted
        )
    return prefix, wanted


@triton.jit(do_not_specialize=_COUNTS)
def _count_kernel(norms_ptr, counts_ptr, positions, k, DIGIT: tl.constexpr, BLOCK: tl.constexpr):
    """Add a block of an image to the counts of one digit, [B, 4, 256]. Grid: (blocks, B)."""
    image = tl.program_id(1).to(tl.int64)
    counts_ptr += image * 1024
    prefix, _ = _known_digits(counts_ptr, k, DIGIT)
    keys = _keys(
        norms_ptr + image * positions, tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), positions
    )
    counts = _digit_counts(keys, prefix, 24 - 8 * DIGIT)
    tl.atomic_add(
        counts_ptr + DIGIT * 256 + tl.arange(0, 256), counts, mask=counts > 0, sem='relaxed'
    )


@triton.jit(do_not_specialize=_COUNTS)
def _block_kernel(norms_ptr, counts_ptr, totals_ptr, positions, k, blocks, BLOCK: tl.constexpr):
    """Count the keys above the threshold and those equal to it in each block, [B, 2, blocks].

    Grid: (blocks, B).
    """
    image = tl.program_id(1).to(tl.int64)
    threshold, _ = _known_digits(counts_ptr + image * 1024, k, 4)
    keys = _keys(
        norms_ptr + image * positions, tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), positions
    )
    totals_ptr += image * 2 * blocks + tl.program_id(0)
    tl.store(totals_ptr, tl.sum((keys > threshold).to(tl.int32), 0))
    tl.store(totals_ptr + blocks, tl.sum((keys == threshold).to(tl.int32), 0))


@triton.jit(do_not_specialize=_COUNTS)
def _rank_kernel(
    norms_ptr, counts_ptr, totals_ptr, slot_ptr, positions, k, blocks, BLOCK: tl.constexpr
):
    """Write the slots of a block, after adding up the counts of all blocks before it.

    Grid: (blocks, B).
    """
    image, block = tl.program_id(1).to(tl.int64), tl.program_id(0)
    threshold, wanted = _known_digits(counts_ptr + image * 1024, k, 4)
    totals_ptr += image * 2 * blocks
    above, tied = 0, 0
    for first in range(0, block, 256):
        before = first + tl.arange(0, 256)
        above += tl.sum(tl.load(totals_ptr + before, mask=before < block, other=0), 0)
        tied += tl.sum(tl.load(totals_ptr + blocks + before, mask=before < block, other=0), 0)
    position = block * BLOCK + tl.arange(0, BLOCK)
    keys = _keys(norms_ptr + image * positions, position, positions)
    slot, _, _ = _ranks(keys, threshold, wanted, tied, above + tl.minimum(tied, wanted))
    tl.store(slot_ptr + image * positions + position, slot, mask=position < positions)


def select(norms: Tensor, k: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.select`.

    Small images take one program each. Larger ones take many programs, in six launches.
    """
    norms = norms.float().contiguous()
    batch, positions = norms.shape
    slot = norms.new_empty(batch, positions, dtype=torch.int32)
    config = configuration('select', norms)
    if positions <= config.pop('one_program'):
        options = dict(BLOCK=config['block'], num_warps=config['num_warps'])
        launch(_select_kernel, (batch,), norms, norms, slot, positions, k, **options)
        return slot
    options = dict(BLOCK=config['many_block'], num_warps=config['many_warps'])
    blocks = triton.cdiv(positions, config['many_block'])
    grid = (blocks, batch)
    counts = norms.new_zeros(batch, 4, 256, dtype=torch.int32)
    totals = norms.new_empty(batch, 2, blocks, dtype=torch.int32)
    for digit in range(4):
        launch(_count_kernel, grid, norms, norms, counts, positions, k, DIGIT=digit, **options)
    launch(_block_kernel, grid, norms, norms, counts, totals, positions, k, blocks, **options)
    launch(_rank_kernel, grid, norms, norms, counts, totals, slot, positions, k, blocks, **options)
    return slot
