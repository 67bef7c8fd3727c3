"""Fake quantization in numba: one pass over memory forward, one backward, bit-equal to the reference in ``x``."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .jit import jit
from .memory import empty_like, values_of
from .threads import fork, thread_count

__all__ = ['fake_quant', 'fake_quant_backward']

_CHUNK = 4096  # values summed by one thread before the sums are added: fixed, so results do not depend on threads
_jit = jit(fastmath={'reassoc', 'contract'})


@_jit
def _round_chunks(begin, end, x, step, low, high, y):
    for chunk in range(begin, end):
        for n in range(chunk * _CHUNK, min(x.size, (chunk + 1) * _CHUNK)):
            value = x[n] / step
            value = low if value < low else high if value > high else value  # NaN stays
            y[n] = np.rint(value) * step


@_jit
def _round_kernel(count, threads, *arguments):
    fork(_round_chunks, count, threads, arguments)


@_jit
def _gradient_chunks(begin, end, grad, x, step, low, high, clip_gradient, grad_x, sums):
    zero = np.float32(0)
    for chunk in range(begin, end):
        first, last = chunk * _CHUNK, min(x.size, (chunk + 1) * _CHUNK)
        for n in range(first, last):
            value = x[n] / step
            grad_x[n] = grad[n] if low <= value <= high or not clip_gradient else zero
        # In a loop of its own, which writes nothing: beside a write, it depends on where arrays lie in memory whether
        # the compiler's vectors or its scalars run, and so does the order of the sum.
        total = zero
        for n in range(first, last):
            value = x[n] / step
            clipped = low if value < low else high if value > high else value
            total += grad[n] * (np.rint(clipped) - value if clipped == value else clipped)
        sums[chunk] = total


@_jit
def _gradient_kernel(count, threads, *arguments):
    fork(_gradient_chunks, count, threads, arguments)


def _dense(x: Tensor) -> Tensor:
    return x.detach() if torch.ops.aten.is_non_overlapping_and_dense(x) else empty_like(x).copy_(x)


def _grid(clip_alpha: Tensor, signed: Tensor, bits: int, symmetric: bool) -> tuple:
    from ..fake_quant import grid
    step, low, high = grid(torch.float32, clip_alpha, signed, bits, symmetric)
    return np.float32(step.item()), np.float32(low.item()), np.float32(high.item())


def fake_quant(x: Tensor, clip_alpha: Tensor, signed: Tensor, bits: int, symmetric: bool, clip_gradient: bool,
               alpha_scale: float) -> Tensor:
    """Compute :func:`mmwcc.kernels.fake_quant` of float32 values."""
    x = _dense(x)
    y, count = empty_like(x), -(-x.numel() // _CHUNK)
    _round_kernel(count, thread_count(count), values_of(x), *_grid(clip_alpha, signed, bits, symmetric), values_of(y))
    return y


def fake_quant_backward(grad: Tensor, x: Tensor, clip_alpha: Tensor, signed: Tensor, bits: int, symmetric: bool,
                        clip_gradient: bool, alpha_scale: float) -> tuple[Tensor, Tensor]:
    """Compute :func:`mmwcc.kernels.fake_quant_backward` of float32 values."""
    x, grad = _dense(x), grad.detach()
    passed = grad if clip_gradient else grad.clone()
    if grad.stride() != x.stride() or grad.dtype != x.dtype:
        grad = empty_like(x).copy_(grad)
    step, low, high = _grid(clip_alpha, signed, bits, symmetric)
    grad_x, count = empty_like(x), -(-x.numel() // _CHUNK)
    sums = np.empty(count, np.float32)
    _gradient_kernel(count, thread_count(count), values_of(grad), values_of(x), step, low, high, clip_gradient,
                     values_of(grad_x), sums)
    total = sums.sum(dtype=np.float64) / high * alpha_scale
    return grad_x if clip_gradient else passed, torch.full_like(clip_alpha, total)
