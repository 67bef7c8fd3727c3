"""CPU kernels in numba. They change speed only: without this folder, or without numba, the references run."""
