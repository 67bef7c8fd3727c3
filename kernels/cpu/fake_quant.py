"""Fake quantization in numba: one pass over memory forward, one backward, bit-equal to the reference in ``x``."""
from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from .threads import use_torch_threads

__all__ = ['fake_quant', 'fake_quant_backward']

_CHUNK = 16384  # values summed by one thread before the sums are added: fixed, so results do not depend on threads
_jit = numba.njit(parallel=True, cache=True, nogil=True, fastmath={'reassoc', 'contract'})


@_jit
def _round_kernel(x, step, low, high, y):
    for chunk in numba.prange((x.size + _CHUNK - 1) // _CHUNK):
        for n in range(chunk * _CHUNK, min(x.size, (chunk + 1) * _CHUNK)):
            value = x[n] / step
            value = low if value < low else high if value > high else value  # NaN stays
            y[n] = np.rint(value) * step


@_jit
def _gradient_kernel(grad, x, step, low, high, clip_gradient, grad_x, sums):
    zero = np.float32(0)
    for chunk in numba.prange(sums.size):
        total = zero
        for n in range(chunk * _CHUNK, min(x.size, (chunk + 1) * _CHUNK)):
            value = x[n] / step
            clipped = low if value < low else high if value > high else value
            inside = clipped == value
            grad_x[n] = grad[n] if inside or not clip_gradient else zero
            total += grad[n] * (np.rint(clipped) - value if inside else clipped)
        sums[chunk] = total


def _flat(x: Tensor) -> np.ndarray:
    """View a dense tensor as the array of its values in the order of memory."""
    return x.detach().as_strided((x.numel(), ), (1, )).numpy()


def _grid(clip_alpha: Tensor, signed: Tensor, bits: int, symmetric: bool) -> tuple:
    from ..fake_quant import grid
    step, low, high = grid(torch.float32, clip_alpha, signed, bits, symmetric)
    return np.float32(step.item()), np.float32(low.item()), np.float32(high.item())


def fake_quant(x: Tensor, clip_alpha: Tensor, signed: Tensor, bits: int, symmetric: bool, clip_gradient: bool,
               alpha_scale: float) -> Tensor:
    """Compute :func:`mmwcc.kernels.fake_quant` of dense float32 values."""
    use_torch_threads()
    y = torch.empty_like(x)
    _round_kernel(_flat(x), *_grid(clip_alpha, signed, bits, symmetric), _flat(y))
    return y


def fake_quant_backward(grad: Tensor, x: Tensor, clip_alpha: Tensor, signed: Tensor, bits: int, symmetric: bool,
                        clip_gradient: bool, alpha_scale: float) -> tuple[Tensor, Tensor]:
    """Compute :func:`mmwcc.kernels.fake_quant_backward` of dense float32 values."""
    use_torch_threads()
    if grad.stride() != x.stride() or grad.dtype != x.dtype:
        grad = torch.empty_like(x).copy_(grad)
    step, low, high = _grid(clip_alpha, signed, bits, symmetric)
    grad_x, sums = torch.empty_like(x), np.empty(-(-x.numel() // _CHUNK), np.float32)
    _gradient_kernel(_flat(grad), _flat(x), step, low, high, clip_gradient, _flat(grad_x), sums)
    total = sums.sum(dtype=np.float64) / high * alpha_scale
    return grad_x, torch.full_like(clip_alpha, total)
