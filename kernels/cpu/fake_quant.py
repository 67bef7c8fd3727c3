"""Fake quantization in numba, with one pass over memory forward and one backward.

The results for ``x`` equal those of the reference bit for bit.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..fake_quant import _SMALLEST_CLIP, grid, values_per_clip
from .jit import jit
from .memory import empty_like, values_of
from .threads import fork, thread_count

__all__ = ['fake_quant', 'fake_quant_backward']

_CHUNK = 4096  # values summed before the sums are added; fixed, so threads change no result
_jit = jit(fastmath={'reassoc', 'contract'})
_inline = jit(fastmath={'reassoc', 'contract'}, forceinline=True)


@_inline
def _clamped(value, low, high):
    """Clamp a value. NaN stays."""
    value = low if value < low else value
    return high if value > high else value


@_jit
def _round_chunks(begin, end, x, grid, per_step, y):
    """Round chunks of values. Each run of ``per_step`` values in memory has a step of its own.

    ``grid`` is what :func:`_grid` returns.
    """
    steps, low, high = grid
    chunks = (per_step + _CHUNK - 1) // _CHUNK
    for chunk in range(begin, end):
        owner, inner = chunk // chunks, chunk % chunks * _CHUNK
        step, first = steps[owner], owner * per_step
        for n in range(first + inner, first + min(per_step, inner + _CHUNK)):
            y[n] = np.rint(_clamped(x[n] / step, low, high)) * step


@_jit
def _round_kernel(count, threads, *arguments):
    """Run :func:`_round_chunks` on all chunks."""
    fork(_round_chunks, count, threads, arguments)


@_jit
def _gradient_chunks(begin, end, values, grid, clips, per_step, rules, results):
    """Cut gradients off outside the clips, and sum what each chunk contributes to that of its clip.

    Args:
        begin: First chunk.
        end: One past the last chunk.
        values: The gradient of the rounded values, and the values before rounding.
        grid: What :func:`_grid` returns.
        clips: The clips. They are only read without ``rounding_gradient``.
        per_step: How many values, consecutive in memory, share a clip.
        rules: ``clip_gradient`` and ``rounding_gradient``.
        results: Arrays for the gradient of the values and for the sum of each chunk.
    """
    grad, x = values
    steps, low, high = grid
    clip_gradient, rounding_gradient = rules
    grad_x, sums = results
    zero, chunks = np.float32(0), (per_step + _CHUNK - 1) // _CHUNK
    for chunk in range(begin, end):
        owner, inner = chunk // chunks, chunk % chunks * _CHUNK
        step, clip, first = steps[owner], clips[owner], owner * per_step + inner
        lowest, last = clip * (low / high), min(owner * per_step + per_step, first + _CHUNK)
        for n in range(first, last):
            value = x[n] / step
            grad_x[n] = grad[n] if low <= value <= high or not clip_gradient else zero
        # The sum has a loop of its own, which writes nothing. Next to a write, the compiler would
        # choose between vectors and scalars at run time, by where the arrays lie in memory, and
        # the order of the sum would change with it.
        total = zero
        if rounding_gradient:
            for n in range(first, last):
                value = x[n] / step
                clipped = _clamped(value, low, high)
                total += grad[n] * (np.rint(clipped) - value if clipped == value else clipped)
        else:
            for n in range(first, last):
                clipped = _clamped(x[n] / step, low, high)
                total += grad[n] * (zero if lowest < x[n] < clip else clipped)
        sums[chunk] = total


@_jit
def _gradient_kernel(count, threads, *arguments):
    """Run :func:`_gradient_chunks` on all chunks."""
    fork(_gradient_chunks, count, threads, arguments)


def _dense(x: Tensor) -> Tensor:
    """Return values that fill their memory, copied only if they have gaps or overlap."""
    return x.detach() if torch.ops.aten.is_non_overlapping_and_dense(x) else empty_like(x).copy_(x)


def _grid(clip_alpha: Tensor, signed: Tensor, bits: int, symmetric: bool) -> tuple:
    """Return the steps as an array, and the lowest and highest level as numbers."""
    step, low, high = grid(torch.float32, clip_alpha.detach(), signed, bits, symmetric)
    return values_of(step), np.float32(low.item()), np.float32(high.item())


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
    """Compute :func:`mmwcc.kernels.fake_quant` of float32 values.

    The values of each clip must be consecutive in memory.
    """
    x = _dense(x)
    per_step = values_per_clip(x, clip_alpha)
    if per_step is None:
        return NotImplemented
    y, count = empty_like(x), clip_alpha.numel() * -(-per_step // _CHUNK)
    grid_of_x = _grid(clip_alpha, signed, bits, symmetric)
    _round_kernel(count, thread_count(count), values_of(x), grid_of_x, per_step, values_of(y))
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
    """Compute :func:`mmwcc.kernels.fake_quant_backward`, where :func:`fake_quant` here can run."""
    x, grad = _dense(x), grad.detach()
    per_step = values_per_clip(x, clip_alpha)
    if per_step is None:
        return NotImplemented
    passed = grad if clip_gradient else grad.clone()
    if grad.stride() != x.stride() or grad.dtype != x.dtype:
        grad = empty_like(x).copy_(grad)
    steps, _, high = grid_of_x = _grid(clip_alpha, signed, bits, symmetric)
    grad_x, count = empty_like(x), clip_alpha.numel() * -(-per_step // _CHUNK)
    sums = np.empty(count, np.float32)
    clips = steps  # the kernel does not read it then, but wants an array of this type
    if not rounding_gradient:
        clips = values_of(clip_alpha.detach().to(torch.float32).clamp_min(_SMALLEST_CLIP))
    _gradient_kernel(
        count,
        thread_count(count),
        (values_of(grad), values_of(x)),
        grid_of_x,
        clips,
        per_step,
        (clip_gradient, rounding_gradient),
        (values_of(grad_x), sums),
    )
    totals = sums.reshape(len(steps), -1).sum(1, dtype=np.float64) / high * alpha_scale
    total = torch.from_numpy(totals).to(clip_alpha).view_as(clip_alpha)
    return grad_x if clip_gradient else passed, total
