"""CPU kernels in numba.

They change speed only: without this folder, or without numba, the references run.
"""

from numba import config

if config.DISABLE_JIT:
    raise ImportError('NUMBA_DISABLE_JIT keeps numba from compiling; unset it')
