"""The benchmark of the mechanisms of the CPU kernels."""

import importlib
from pathlib import Path

import pytest

pytest.importorskip('numba', reason='the mechanisms are those of the numba kernels')
FOLDER = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks'


def test_mechanisms_are_left_out_one_at_a_time(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    mechanisms = importlib.import_module('mechanisms')
    row = mechanisms.measure(8, 4, 6, seconds=0)
    assert list(row['milliseconds']) == list(mechanisms.MECHANISMS)
    memory, product, threads = (
        importlib.import_module(f'mmwcc.kernels.cpu.{name}')
        for name in ('memory', 'product', 'threads')
    )
    large, checksums, count = memory._LARGE, product._checksums, product.thread_count
    assert count is threads.thread_count
    with mechanisms.without_reuse(), mechanisms.without_checksums(), mechanisms.without_threads():
        assert large < memory._LARGE and product._checksums is not checksums
        assert product.thread_count(8) == 1
    assert (memory._LARGE, product._checksums, product.thread_count) == (large, checksums, count)
