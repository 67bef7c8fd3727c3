"""What every case of the Triton kernels starts from."""

import pytest
import torch


@pytest.fixture(autouse=True, scope='session')
def _run_time_bounds():
    """Let a loop of the interpreter of Triton 3.6 run to a bound that is a tensor.

    It makes an integer of an array of one element and one axis, which numpy refuses from 2.4 on.
    """
    from .common import INTERPRETED

    if not INTERPRETED:
        return
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor, *scope):
        patch(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.squeeze())

    interpreter._patch_lang_tensor = patched


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
