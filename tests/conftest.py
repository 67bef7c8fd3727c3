"""What every test starts from: the same random numbers, one thread, and no default scope of a test
before it.
"""

import os
import sys
from pathlib import Path

# The cores are taken by the processes among which the tests are divided. Programs that tests start
# inherit this; a test of several threads sets their number itself.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest
import torch


@pytest.hookimpl(optionalhook=True)  # kernel cases run without xdist, too
def pytest_xdist_auto_num_workers(config):
    """Run in one process what ends before others have started: single files, and what -k picks."""
    is_small = config.option.keyword or not all(Path(arg).is_dir() for arg in config.args)
    return 0 if is_small else None


@pytest.fixture(autouse=True)
def same_start():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    if 'mmengine.registry' in sys.modules:
        # Building a runner or a model leaves its scope behind, in which later names would be looked
        # up.
        sys.modules['mmengine.registry'].DefaultScope._instance_dict.clear()
