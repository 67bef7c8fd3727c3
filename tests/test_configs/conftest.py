"""Makes ``fabricated`` importable and keeps the tests of this folder on one thread."""
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg', reason='configs need mmsegmentation', exc_type=ImportError)

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='session')
def data_root(tmp_path_factory):
    """A folder with a few random images in the layout of every data set that the configs use."""
    from fabricated import write_data_sets
    return write_data_sets(tmp_path_factory.mktemp('data'))
