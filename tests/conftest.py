"""What every test starts from: the same random numbers, one thread, and no default scope of a test
before it.
"""

import sys

import pytest
import torch


@pytest.fixture(autouse=True)
def same_start():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    if 'mmengine.registry' in sys.modules:
        # Building a runner or a model leaves its scope behind, in which later names would be looked
        # up.
        sys.modules['mmengine.registry'].DefaultScope._instance_dict.clear()
