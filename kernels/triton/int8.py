"""Integer arithmetic of 8-bit layers: rounding of a map to rows, and their product."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import blocked, configuration, launch, layout_of
from .tile import to_int8

__all__ = ['int8_linear', 'quantize_int8']


@triton.jit(do_not_specialize=['pixels', 'width', 'stride_b', 'stride_c', 'stride_h', 'stride_w'])
def _quantize_kernel(
    x_ptr,
    step_ptr,
    low,
    high,
    rows_ptr,
    pixels,
    width,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    C: tl.constexpr,
    UNIT: tl.constexpr,
    ALIGN: tl.constexpr,
    GRAIN: tl.constexpr,
    FLAT: tl.constexpr,
    PIXELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Round a block of pixels and channels.

    ``FLAT`` says that all pixels of an image are equally far apart, so that lines need no extra
    arithmetic. The blocks of channels of a pixel run next to each other. Grid: (B * blocks of
    pixels * blocks of channels,).
    """
    slices: tl.constexpr = (C + BLOCK - 1) // BLOCK
    blocks = tl.cdiv(pixels * GRAIN, PIXELS)
    image = (tl.program_id(0) // (blocks * slices)).to(tl.int64)
    pixel = tl.program_id(0) // slices % blocks * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(0) % slices * BLOCK + tl.arange(0, BLOCK)
    deep = channel if UNIT == 1 else channel.to(tl.int64) * stride_c * ALIGN
    far = stride_w if UNIT == 2 else stride_w.to(tl.int64) * ALIGN
    if FLAT:
        across = pixel if UNIT == 2 else pixel * far
    else:
        across = (pixel // width).to(tl.int64) * stride_h * ALIGN + pixel % width * far
    mask = (pixel < pixels * GRAIN)[:, None] & (channel < C)[None, :]
    x = tl.load(
        x_ptr + image * stride_b * ALIGN + across[:, None] + deep[None, :], mask=mask, other=0.0
    )
    rows = to_int8(x.to(tl.float32), tl.load(step_ptr).to(tl.float32), low, high)
    row = image * pixels * GRAIN + pixel
    tl.store(rows_ptr + row[:, None] * C + channel[None, :], rows, mask=mask)


@triton.jit(do_not_specialize=['count'])
def _linear_kernel(
    rows_ptr,
    weight_ptr,
    scale_ptr,
    bias_ptr,
    factors_ptr,
    offset_ptr,
    y_ptr,
    count,
    C: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISE: tl.constexpr,
):
    """Multiply rows by a kernel in int32 and scale the sums.

    ``GROUP`` blocks of rows run next to each other, so that they share a block of the kernel in the
    L2 cache. Grid: (row blocks * output blocks,).
    """
    columns: tl.constexpr = (OUTPUTS + BLOCK_N - 1) // BLOCK_N
    blocks = tl.cdiv(count, BLOCK_M)
    first = tl.program_id(0) // (GROUP * columns) * GROUP
    size = tl.minimum(blocks - first, GROUP)
    block = first + tl.program_id(0) % (GROUP * columns) % size
    row = block.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    output = tl.program_id(0) % (GROUP * columns) // size * BLOCK_N + tl.arange(0, BLOCK_N)
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    for start in range(0, C, BLOCK_K):
        inner = start + tl.arange(0, BLOCK_K)
        rows = tl.load(
            rows_ptr + row[:, None] * C + inner[None, :],
            mask=(row < count)[:, None] & (inner < C)[None, :],
            other=0,
        )
        weight = tl.load(
            weight_ptr + output[None, :] * C + inner[:, None],
            mask=(inner < C)[:, None] & (output < OUTPUTS)[None, :],
            other=0,
        )
        sums = tl.dot(rows, weight, sums, out_dtype=tl.int32)
    if offset_ptr is not None:
        sums += tl.load(offset_ptr + output, mask=output < OUTPUTS, other=0)[None, :]
    compute = tl.float64 if PRECISE else tl.float32
    y = (
        sums.to(compute)
        * tl.load(scale_ptr + output, mask=output < OUTPUTS, other=0.0).to(compute)[None, :]
    )
    if factors_ptr is not None:
        y *= tl.load(factors_ptr + row, mask=row < count, other=0.0).to(compute)[:, None]
    if bias_ptr is not None:
        y += tl.load(bias_ptr + output, mask=output < OUTPUTS, other=0.0).to(compute)[None, :]
    tl.store(
        y_ptr + row[:, None] * OUTPUTS + output[None, :],
        y.to(y_ptr.dtype.element_ty),
        mask=(row < count)[:, None] & (output < OUTPUTS)[None, :],
    )


def quantize_int8(x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.quantize_int8`."""
    batch, channels, height, width = x.shape
    pixels = height * width
    rows = torch.empty(batch, pixels, channels, dtype=torch.int8, device=x.device)
    layout, config = layout_of(x), configuration('quantize_int8', x)
    per_line = layout.strides[3] * (1 if layout.unit == 2 else layout.align) * width
    flat = height == 1 or width == 1 or layout.strides[2] * layout.align == per_line
    grain = next(g for g in (16, 8, 4, 2, 1) if pixels % g == 0)
    strides = layout.strides if width > 1 else (*layout.strides[:3], layout.strides[2])
    size = config.pop('pixels')
    count, options = blocked(config, channels)
    launch(
        _quantize_kernel,
        (batch * triton.cdiv(pixels, size) * count,),
        x,
        x,
        step,
        float(low),
        float(high),
        rows,
        pixels // grain,
        width,
        *strides,
        C=channels,
        UNIT=layout.unit,
        ALIGN=layout.align,
        GRAIN=grain,
        FLAT=flat,
        PIXELS=size,
        **options,
    )
    return rows


def int8_linear(
    rows: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    factors: Tensor | None = None,
    offset: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Compute :func:`mmwcc.kernels.int8_linear`.

    The sums are exact. They are scaled in float32 at least and rounded once, as they are written.
    """
    outputs, channels = weight.shape
    y = scale.new_empty(*rows.shape[:-1], outputs, dtype=dtype)
    count = rows.numel() // channels
    config = configuration('int8_linear', rows)
    m, n, k = (
        max(16, min(config.pop(name), triton.next_power_of_2(size)))
        for name, size in (('block_m', count), ('block_n', outputs), ('block_k', max(32, channels)))
    )
    group = config.pop('group')
    launch(
        _linear_kernel,
        (triton.cdiv(count, m) * triton.cdiv(outputs, n),),
        rows,
        rows.contiguous(),
        weight.contiguous(),
        scale.contiguous(),
        *(x if x is None else x.contiguous() for x in (bias, factors, offset)),
        y,
        count,
        C=channels,
        OUTPUTS=outputs,
        BLOCK_M=m,
        BLOCK_N=n,
        BLOCK_K=k,
        GROUP=group,
        PRECISE=scale.dtype == torch.float64,
        **config,
    )
    return y
