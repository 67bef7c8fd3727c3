"""How a run of the tests is divided among processes."""

from pathlib import Path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ('names', 'keyword', 'workers'),
    [
        (['.'], '', None),  # as many as pytest-xdist finds cores
        (['test_models', 'test_layers'], '', None),
        (['test_models'], 'compiled', 0),
        (['test_conftest.py'], '', 0),
        (['test_models', 'test_conftest.py::test_a_small_run_stays_in_one_process'], '', 0),
    ],
)
def test_a_small_run_stays_in_one_process(request, names, keyword, workers):
    (conftest,) = (
        plugin
        for plugin in request.config.pluginmanager.get_plugins()
        if getattr(plugin, '__file__', None) == str(HERE / 'conftest.py')
    )
    config = SimpleNamespace(
        option=SimpleNamespace(keyword=keyword), args=[str(HERE / name) for name in names]
    )
    assert conftest.pytest_xdist_auto_num_workers(config) == workers
