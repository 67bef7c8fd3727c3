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
def _whole_kernel(norms_ptr, slot_ptr, positions, k, BLOCK: tl.constexpr):
    """Select in one image that fits into a block, which is read once. Grid: (B,)."""
    image = tl.program_id(0).to(tl.int64)
    position = tl.arange(0, BLOCK)
    keys = _keys(norms_ptr + image * positions, position, positions)
    threshold, wanted = 0, k
    for digit in tl.static_range(4):
        counts = _digit_counts(keys, threshold, 24 - 8 * digit)
        threshold, wanted = _next_digit(counts, threshold, wanted)
    slot, _, _ = _ranks(keys, threshold, wanted, 0, 0)
    tl.store(slot_ptr + image * positions + position, slot, mask=position < positions)


@triton.jit(do_not_specialize=_COUNTS)
def _select_kernel(norms_ptr, slot_ptr, positions, k, BLOCK: tl.constexpr):
    """Select in one image, block by block. Grid: (B,)."""
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
def _counts_of(counts_ptr, first, end):
    """Load the counts of 16 blocks, [16, 256], zero from the block ``end`` on."""
    block = first + tl.arange(0, 16)
    places = counts_ptr + block[:, None] * 256 + tl.arange(0, 256)[None, :]
    return tl.load(places, mask=(block < end)[:, None], other=0)


@triton.jit
def _known(counts_ptr, known_ptr, k, blocks, DIGIT: tl.constexpr):
    """Return the first digits of the threshold, and how many keys with them are wanted.

    ``counts_ptr`` points to what all blocks counted of the last of these ``DIGIT`` digits, and
    ``known_ptr`` to what is returned for one digit less.
    """
    prefix, wanted = 0, k
    if DIGIT > 1:
        prefix, wanted = tl.load(known_ptr), tl.load(known_ptr + 1)
    if DIGIT > 0:
        counts = tl.zeros((256,), tl.int32)
        for first in range(0, blocks, 16):
            counts += tl.sum(_counts_of(counts_ptr, first, blocks), 0)
        prefix, wanted = _next_digit(counts, prefix, wanted)
    return prefix, wanted


@triton.jit(do_not_specialize=_COUNTS)
def _count_kernel(
    norms_ptr,
    counts_ptr,
    known_ptr,
    above_ptr,
    positions,
    k,
    blocks,
    DIGIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Count one digit of the keys of a block that share the digits before it, [B, 4, blocks, 256].

    Also write the digits that are known already, and how many keys of the block are above them.
    Grid: (blocks, B).
    """
    image, block = tl.program_id(1).to(tl.int64), tl.program_id(0)
    counts_ptr += (image * 4 + DIGIT) * blocks * 256
    known_ptr += (image * 4 + DIGIT) * 2
    prefix, wanted = _known(counts_ptr - blocks * 256, known_ptr - 2, k, blocks, DIGIT)
    tl.store(known_ptr, prefix, mask=block == 0)
    tl.store(known_ptr + 1, wanted, mask=block == 0)
    keys = _keys(norms_ptr + image * positions, block * BLOCK + tl.arange(0, BLOCK), positions)
    counts = _digit_counts(keys, prefix, 24 - 8 * DIGIT)
    tl.store(counts_ptr + block * 256 + tl.arange(0, 256), counts)
    if DIGIT == 3:
        above = tl.sum(((keys >> 8) > prefix).to(tl.int32), 0)
        tl.store(above_ptr + image * blocks + block, above)


@triton.jit(do_not_specialize=_COUNTS)
def _rank_kernel(
    norms_ptr,
    counts_ptr,
    known_ptr,
    above_ptr,
    slot_ptr,
    positions,
    k,
    blocks,
    BLOCK: tl.constexpr,
):
    """Write the slots of a block, after adding up what the blocks before it keep.

    Grid: (blocks, B).
    """
    image, block = tl.program_id(1).to(tl.int64), tl.program_id(0)
    counts_ptr += (image * 4 + 3) * blocks * 256
    threshold, wanted = _known(counts_ptr, known_ptr + (image * 4 + 3) * 2, k, blocks, 4)
    digit = tl.arange(0, 256)[None, :]
    above, tied = 0, 0
    for first in range(0, block, 16):
        counts = _counts_of(counts_ptr, first, block)
        before = first + tl.arange(0, 16)
        above += tl.sum(tl.load(above_ptr + image * blocks + before, mask=before < block, other=0))
        above += tl.sum(tl.where(digit > (threshold & 255), counts, 0))
        tied += tl.sum(tl.where(digit == (threshold & 255), counts, 0))
    position = block * BLOCK + tl.arange(0, BLOCK)
    keys = _keys(norms_ptr + image * positions, position, positions)
    slot, _, _ = _ranks(keys, threshold, wanted, tied, above + tl.minimum(tied, wanted))
    tl.store(slot_ptr + image * positions + position, slot, mask=position < positions)


def select(norms: Tensor, k: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.select`.

    An image takes one program and one launch if it is small, or if there are so many images that
    they keep the device busy. Otherwise it takes many programs, in five launches.
    """
    norms = norms.float().contiguous()
    batch, positions = norms.shape
    slot = norms.new_empty(batch, positions, dtype=torch.int32)
    config = configuration('select', norms)
    if positions <= config['one_block']:
        block = max(256, triton.next_power_of_2(positions))
        warps = min(config['one_warps'], block // 256)
        options = dict(BLOCK=block, num_warps=warps)
        launch(_whole_kernel, (batch,), norms, norms, slot, positions, k, **options)
    elif positions <= config['one_program'] or batch >= config['many_images']:
        options = dict(BLOCK=config['block'], num_warps=config['num_warps'])
        launch(_select_kernel, (batch,), norms, norms, slot, positions, k, **options)
    else:
        _select_by_many(norms, slot, k, config)
    return slot


def _select_by_many(norms: Tensor, slot: Tensor, k: int, config: dict[str, int]) -> None:
    """Write ``slot`` with many programs for an image."""
    batch, positions = norms.shape
    options = dict(BLOCK=config['many_block'], num_warps=config['many_warps'])
    blocks = triton.cdiv(positions, config['many_block'])
    counts = norms.new_empty(batch, 4, blocks, 256, dtype=torch.int32)
    known = norms.new_empty(batch, 4, 2, dtype=torch.int32)
    above = norms.new_empty(batch, blocks, dtype=torch.int32)
    work, sizes, grid = (norms, counts, known, above), (positions, k, blocks), (blocks, batch)
    for digit in range(4):
        launch(_count_kernel, grid, norms, *work, *sizes, DIGIT=digit, **options)
    launch(_rank_kernel, grid, norms, *work, slot, *sizes, **options)
