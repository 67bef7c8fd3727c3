"""Fake quantization with one pass over memory forward and one backward.

The gradient of the clip is summed in a fixed order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..fake_quant import _SMALLEST_CLIP
from .launch import configuration, launch
from .tile import clamp, divide, round_even

__all__ = ['fake_quant', 'fake_quant_backward']

_CHUNK = 16384  # values summed by one program: fixed, so that results do not depend on the device
_SMALLEST = tl.constexpr(_SMALLEST_CLIP)


@triton.jit
def _grid(clip_ptr, signed_ptr, BITS: tl.constexpr, SYMMETRIC: tl.constexpr):
    """Compute the step and the lowest and highest level on the device, from clip and sign."""
    positive: tl.constexpr = 2 ** (BITS - 1) - 1
    signed = tl.load(signed_ptr) != 0
    high = tl.where(signed, 1.0 * positive, 2.0**BITS - 1)
    low = tl.where(signed, -1.0 * positive if SYMMETRIC else -1.0 * positive - 1, 0.0)
    clip = tl.load(clip_ptr).to(tl.float32)
    return tl.div_rn(tl.where(clip < _SMALLEST, _SMALLEST, clip), high), low, high


@triton.jit
def _round_kernel(
    x_ptr,
    y_ptr,
    clip_ptr,
    signed_ptr,
    size,
    BITS: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Round values in memory order. Grid: (size / BLOCK,)."""
    step, low, high = _grid(clip_ptr, signed_ptr, BITS, SYMMETRIC)
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + n, mask=n < size, other=0.0).to(tl.float32)
    y = round_even(clamp(divide(x, step), low, high)) * step
    tl.store(y_ptr + n, y.to(y_ptr.dtype.element_ty), mask=n < size)


@triton.jit
def _gradient_kernel(
    grad_ptr,
    x_ptr,
    clip_ptr,
    signed_ptr,
    grad_x_ptr,
    sums_ptr,
    size,
    BITS: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    ROUNDING: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Cut the gradient off outside the clips and sum that of the clip over a chunk.

    The gradient of the values is not written if ``grad_x_ptr`` is None. Grid: (size / CHUNK,).
    """
    step, low, high = _grid(clip_ptr, signed_ptr, BITS, SYMMETRIC)
    clip = tl.load(clip_ptr).to(tl.float32)
    clip = tl.where(clip < _SMALLEST, _SMALLEST, clip)
    lowest = clip * tl.div_rn(low, high)
    total = tl.zeros((BLOCK,), tl.float32)
    start = tl.program_id(0).to(tl.int64) * CHUNK
    for first in range(0, CHUNK, BLOCK):
        n = start + first + tl.arange(0, BLOCK)
        grad = tl.load(grad_ptr + n, mask=n < size, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + n, mask=n < size, other=0.0).to(tl.float32)
        scaled = divide(x, step)
        clipped = clamp(scaled, low, high)
        inside = clipped == scaled
        if grad_x_ptr is not None:
            tl.store(
                grad_x_ptr + n,
                tl.where(inside, grad, 0.0).to(grad_x_ptr.dtype.element_ty),
                mask=n < size,
            )
        if ROUNDING:
            slope = tl.where(inside, round_even(clipped) - scaled, clipped)
        else:
            slope = tl.where((x > lowest) & (x < clip), 0.0, clipped)
        total += tl.where(n < size, grad * slope, 0.0)
    tl.store(sums_ptr + tl.program_id(0), tl.sum(total, 0))


@triton.jit(do_not_specialize=['count'])
def _total_kernel(
    sums_ptr,
    clip_ptr,
    signed_ptr,
    total_ptr,
    alpha_scale,
    count,
    BITS: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the sums of all chunks and scale them to the gradient of the clip. Grid: (1,)."""
    _, _, high = _grid(clip_ptr, signed_ptr, BITS, SYMMETRIC)
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, count, BLOCK):
        n = first + tl.arange(0, BLOCK)
        total += tl.load(sums_ptr + n, mask=n < count, other=0.0)
    total = tl.div_rn(tl.sum(total, 0), high) * alpha_scale
    tl.store(total_ptr, total.to(total_ptr.dtype.element_ty))


def _dense(x: Tensor, like: Tensor) -> Tensor:
    """Return ``x``, or a copy of it, with the strides of ``like``, which has no gaps in memory."""
    return x if x.stride() == like.stride() else torch.empty_like(like, dtype=x.dtype).copy_(x)


def _flag(signed: Tensor) -> Tensor:
    """View a boolean as a byte, which kernels can load."""
    return signed.view(torch.uint8) if signed.dtype == torch.bool else signed


def fake_quant(
    x: Tensor,
    clip_alpha: Tensor,
    signed: Tensor,
    bits: int,
    symmetric: bool,
    clip_gradient: bool,
    alpha_scale: float,
    rounding_gradient: bool = True,
) -> Tensor:
    """Compute :func:`mmwcc.kernels.fake_quant` with one clip."""
    if clip_alpha.numel() > 1:
        return NotImplemented
    y = torch.empty_like(x)
    config = configuration('fake_quant', x)
    launch(
        _round_kernel,
        (triton.cdiv(x.numel(), config['block']),),
        x,
        _dense(x, y),
        y,
        clip_alpha,
        _flag(signed),
        x.numel(),
        BITS=bits,
        SYMMETRIC=symmetric,
        BLOCK=config['block'],
        num_warps=config['num_warps'],
    )
    return y


def fake_quant_backward(
    grad: Tensor,
    x: Tensor,
    clip_alpha: Tensor,
    signed: Tensor,
    bits: int,
    symmetric: bool,
    clip_gradient: bool,
    alpha_scale: float,
    rounding_gradient: bool = True,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`mmwcc.kernels.fake_quant_backward` with one clip."""
    if clip_alpha.numel() > 1:
        return NotImplemented
    cut = torch.empty_like(x)
    chunks = triton.cdiv(x.numel(), _CHUNK)
    sums = torch.empty(chunks, dtype=torch.float32, device=x.device)
    total = torch.empty_like(clip_alpha)
    config = configuration('fake_quant_backward', x)
    options = dict(BITS=bits, SYMMETRIC=symmetric, num_warps=config['num_warps'])
    launch(
        _gradient_kernel,
        (chunks,),
        x,
        _dense(grad, cut),
        _dense(x, cut),
        clip_alpha,
        _flag(signed),
        cut if clip_gradient else None,
        sums,
        x.numel(),
        ROUNDING=rounding_gradient,
        CHUNK=_CHUNK,
        BLOCK=config['block'],
        **options,
    )
    launch(
        _total_kernel,
        (1,),
        x,
        sums,
        clip_alpha,
        _flag(signed),
        total,
        alpha_scale,
        chunks,
        BLOCK=1024,
        **options,
    )
    return cut if clip_gradient else grad.to(x.dtype, copy=True), total
