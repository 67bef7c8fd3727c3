"""The inverted residual block of the paper's Table 8 on a GPU, in several precisions.

There is a dense and a compressed version. A benchmark compares its timings with floors: the time
that a block would take if each of its kernels ran at the speed of a copy or of a product on this
device, whichever takes longer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from table8 import Row
from torch import Tensor

from mmwcc import kernels
from mmwcc.kernels.triton.depthwise import tap
from mmwcc.kernels.triton.launch import launch, layout_of
from mmwcc.kernels.triton.passes import geometry, tilings
from mmwcc.kernels.triton.tile import in_map, map_offsets, pixels

__all__ = ['MODES', 'Block', 'dense_block', 'floor_ratio', 'plain_depthwise', 'wcc_block']

LEVELS = 3
SELECT_SECONDS = 20e-6  # time that the floors assume for each exact selection


class Mode(NamedTuple):
    """A precision.

    Attributes:
        dtype: Dtype of input and output.
        inside: Dtype of rows, expanded map and coefficients.
        dense_rate: Which of the measured product rates bounds the dense block.
        rate: Which of them bounds the compressed block.
        row_bytes: Bytes of a coefficient as it enters a product.
    """

    dtype: torch.dtype
    inside: torch.dtype
    dense_rate: str
    rate: str
    row_bytes: int


MODES = {
    'bf16': Mode(torch.bfloat16, torch.bfloat16, 'bf16', 'bf16', 2),
    'tf32/bf16': Mode(torch.float32, torch.bfloat16, 'tf32', 'bf16', 2),
    'tf32': Mode(torch.float32, torch.float32, 'tf32', 'tf32', 4),
    'bf16/int8': Mode(torch.bfloat16, torch.bfloat16, 'bf16', 'int8', 1),
    'fp32': Mode(torch.float32, torch.float32, 'fp32', 'fp32', 4),
}


class Block(NamedTuple):
    """Weights of a block, for rows; in int8 with their scales.

    Expansion (E, C), depthwise (E, 1, 3, 3) and projection (C, E).
    """

    expand: Tensor
    depthwise: Tensor
    project: Tensor
    rows: tuple[Tensor, Tensor]
    int8: tuple[Tensor, Tensor, Tensor, Tensor]
    step: Tensor

    @classmethod
    def make(cls, channels: int, expansion: int, mode: str, device: torch.device) -> Block:
        """Draw weights that preserve the variance of the activations."""
        wide = channels * expansion
        expand, project = (
            torch.randn(wide, channels) / channels**0.5,
            torch.randn(channels, wide) / wide**0.5,
        )
        depthwise, step = torch.randn(wide, 1, 3, 3) / 3, torch.full((1,), 6 / 127)
        int8 = []
        for weight in (expand, project):
            unit = weight.abs().amax(1) / 127
            int8 += [(weight / unit[:, None]).round().to(torch.int8), unit * step]
        return cls(
            *(weight.to(device, MODES[mode].dtype) for weight in (expand, depthwise, project)),
            tuple(
                weight.to(device, MODES[mode].inside)[:, :, None, None]
                for weight in (expand, project)
            ),
            tuple(tensor.to(device) for tensor in int8),
            step.to(device),
        )


def cudnn_depthwise(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, None, 1, 1, 1, x.shape[1])


def dense_block(block: Block, x: Tensor, depthwise=cudnn_depthwise) -> Tensor:
    """Run the block without compression, layer by layer."""
    y = depthwise(F.conv2d(x, block.expand[:, :, None, None]), block.depthwise)
    return x + F.conv2d(y, block.project[:, :, None, None])


def wcc_block(block: Block, x: Tensor, keep_ratio: float, mode: str) -> Tensor:
    """Run the compressed block on the fused operators; input and output are channels_last."""
    size, inside, int8 = x.shape[2:], MODES[mode].inside, MODES[mode].rate == 'int8'
    norms = kernels.haar_norms(x, LEVELS)
    k = max(1, round(norms.shape[1] * keep_ratio))
    slot = kernels.select(norms, k)
    if int8:
        rows = kernels.haar_pack_int8(x, slot, k, LEVELS, block.step, -127, 127)
        rows = kernels.int8_linear(rows, *block.int8[:2], dtype=inside)
    else:
        rows = kernels.haar_pack(x, slot, k, LEVELS).to(inside)
        rows = kernels.plain_product(rows, block.rows[0])
    wide = kernels.haar_unpack(rows, slot, None, *size, LEVELS, True)
    coefficients, norms = kernels.depthwise_haar(wide, block.depthwise, None, LEVELS)
    slot = kernels.select(norms, k)
    if int8:
        rows = kernels.gather_rows_int8(coefficients, slot, k, block.step, -127, 127)
        rows = kernels.int8_linear(rows, *block.int8[2:], dtype=inside)
    else:
        rows = kernels.gather_rows(coefficients, slot, k)
        rows = kernels.plain_product(rows, block.rows[1])
    return kernels.haar_unpack(rows.to(x.dtype), slot, None, *size, LEVELS, True, x)


@triton.jit
def _plain_kernel(
    x_ptr,
    weight_ptr,
    y_ptr,
    tiles,
    patches_w,
    height,
    columns,
    positions,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    UNIT: tl.constexpr,
    ALIGN: tl.constexpr,
    GRAIN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Filter a tile of 8x8 pixels. Grid: (B * tiles, channels / BLOCK)."""
    image, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    row, column = pixels(tile, patches_w, LEVELS)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = channel < C
    x_ptr += image * stride_b * ALIGN
    y = tl.zeros((64, BLOCK), tl.float32)
    for vertical in range(3):
        for horizontal in tl.static_range(3):
            above, across = row + vertical - 1, column + horizontal - 1
            offsets = map_offsets(above, across, channel, stride_c, stride_h, stride_w, UNIT, ALIGN)
            weights = weight_ptr + (vertical * 3 + horizontal) * C + channel
            y += tap(x_ptr + offsets, weights, in_map(above, across, height, columns * GRAIN), real)
    offsets = map_offsets(row, column, channel, stride_c, stride_h, stride_w, UNIT, ALIGN)
    inside = (row < height) & (column < columns * GRAIN)
    tl.store(
        y_ptr + image * stride_b * ALIGN + offsets,
        y.to(y_ptr.dtype.element_ty),
        mask=inside[:, None] & real[None, :],
    )


def plain_depthwise(x: Tensor, weight: Tensor) -> Tensor:
    """Filter a dense map by a 3x3 with the taps of ``depthwise_haar``, without a transform.

    This makes the dense contender a fair one.
    """
    height, width = (kernels.padded_size(size, LEVELS) for size in x.shape[2:])
    tiling, layout, y = (
        tilings(height, width, LEVELS)[0],
        layout_of(x),
        torch.empty_like(x),
    )
    sizes, options = geometry(x, layout, tiling)
    block = min(64, triton.next_power_of_2(x.shape[1]))
    launch(
        _plain_kernel,
        (x.shape[0] * tiling.tiles, triton.cdiv(x.shape[1], block)),
        x,
        x,
        weight.flatten(1).t().contiguous(),
        y,
        *sizes,
        *layout.strides,
        **options,
        BLOCK=block,
        num_warps=4,
    )
    return y


def floor_ratio(row: Row, mode: str, rates: dict[str, float]) -> float:
    """Return the speed-up over dense if every kernel of both blocks ran at its floor."""
    precision, pixels_ = MODES[mode], row.size * row.size * row.batch
    outer, inner, packed = precision.dtype.itemsize, precision.inside.itemsize, precision.row_bytes
    narrow, wide, kept = row.channels, row.channels * row.expansion, row.keep_ratio * pixels_

    def kernel(moved: float, multiplied: float = 0, rate: str = 'bf16') -> float:
        return max(moved / rates['copy'], 2 * multiplied / rates[rate])

    product = pixels_ * narrow * wide
    dense = (
        kernel(pixels_ * outer * (narrow + wide), product, precision.dense_rate)
        + kernel(2 * pixels_ * outer * wide)
        + kernel(pixels_ * outer * (wide + 2 * narrow), product, precision.dense_rate)
    )
    product *= row.keep_ratio
    compressed = (
        kernel(2 * pixels_ * outer * narrow + kept * packed * narrow)  # norms, then pack
        + kernel(kept * (packed * narrow + inner * wide), product, precision.rate)
        + kernel((kept + pixels_) * inner * wide)
        + kernel(2 * pixels_ * inner * wide)
        + kernel(kept * (inner + packed) * wide)  # depthwise, gather
        + kernel(kept * (packed * wide + inner * narrow), product, precision.rate)
        + kernel(kept * inner * narrow + 2 * pixels_ * outer * narrow)
        + 2 * SELECT_SECONDS
    )
    return dense / compressed
