"""Makes ``fabricated`` importable and writes the data that it describes."""

import sys
from pathlib import Path

import pytest

pytest.importorskip('mmseg', reason='configs need mmsegmentation', exc_type=ImportError)

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope='session')
def data_root(tmp_path_factory):
    """A folder with a few random images in the layout of every data set that the configs use."""
    from fabricated import write_data_sets

    return write_data_sets(tmp_path_factory.mktemp('data'))
