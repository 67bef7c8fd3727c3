"""What every case of the Triton kernels starts from."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch):
    """Fill what is allocated with NaN, or 99: a value that no kernel writes cannot pass."""
    from .common import DEVICE  # needs Triton, which collecting this folder does not

    def poisoned(allocate):
        def run(*args, **kwargs):
            x = allocate(*args, **kwargs)
            if x.device.type != DEVICE:
                return x
            return x.fill_(float('nan') if x.is_floating_point() else 99)

        return run

    monkeypatch.setattr(torch, 'empty', poisoned(torch.empty))
    monkeypatch.setattr(torch, 'empty_like', poisoned(torch.empty_like))
    monkeypatch.setattr(torch.Tensor, 'new_empty', poisoned(torch.Tensor.new_empty))
