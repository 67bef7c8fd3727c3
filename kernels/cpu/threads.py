"""How many threads numba's kernels use: as many as torch."""
import numba
import torch


def use_torch_threads() -> None:
    """Set numba's thread count to torch's, within what numba was started with."""
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
