"""GPU kernels in Triton.

They change speed only: without this folder, or without Triton, the references run.

A tile is 64 consecutive wavelet positions of an image: one patch of 8x8 pixels at three levels,
four of 4x4 at two, sixteen of 2x2 at one. Its transform is one product with an orthonormal 64x64
matrix. The entries 0, +-1/2, +-1/4 and +-1/8 of this matrix are exact in every floating dtype. So
the product runs on the tensor cores and rounds nothing but the sums. As a consequence, a NaN or
infinity makes its whole tile NaN, not only the coefficients (or pixels) whose support covers it.

Kernels that are launched take everything one by one, up to 34 parameters. Triton would compile a
kernel again for sizes that 16 divides, or that are 1, unless ``do_not_specialize`` names them. It
does not obey that for numbers in a tuple (Triton 3.9). Functions that kernels call have no such
limit, and take at most eight.
"""

import triton

_OLDEST = (3, 6)

if tuple(map(int, triton.__version__.split('.')[:2])) < _OLDEST:
    raise ImportError(
        f'they need Triton {".".join(map(str, _OLDEST))} or newer, as torch 2.11 or newer brings '
        f'it, got {triton.__version__}'
    )
