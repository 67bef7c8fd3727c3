"""Makes ``toy_training`` importable, and what tests of checkpoints share."""

import logging
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope='session')
def checkpoints(tmp_path_factory):
    """One checkpoint each of a dense, a compressed, an unquantized WCC and a scheduled run, after
    two iterations.
    """
    from toy_checks import SCHEDULE, UNQUANTIZED, make

    folder = tmp_path_factory.mktemp('checkpoints')
    make(folder / 'dense', None, length=2).train()
    make(folder / 'compressed', length=2).train()
    make(folder / 'wcc', UNQUANTIZED, length=2).train()
    make(folder / 'scheduled', schedule=SCHEDULE, length=2).train()
    return {
        name: folder / name / 'iter_2.pth' for name in ('dense', 'compressed', 'wcc', 'scheduled')
    }


@pytest.fixture
def log(caplog):
    """Collect what mmengine's loggers say, which do not propagate."""

    def attach(runner):
        runner.logger.setLevel(logging.INFO)
        runner.logger.addHandler(caplog.handler)
        caplog.handler.setLevel(logging.INFO)
        return caplog

    return attach
