"""Timing on a GPU, where calls return before the device has done anything."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

__all__ = ['DEVICE', 'graphed', 'medians']

DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
CALLS = 10  # between two events, so that their own time does not count
QUEUED = 4_000_000  # cycles, some two milliseconds, that the device waits while calls queue up

Calls = dict[str, Callable[[], object]]


def medians(calls: Calls, seconds: float, least: int = 5) -> dict[str, float]:
    """Time the calls in turns; return the median of each in milliseconds.

    This takes about ``seconds``, and at least ``least`` turns.
    """
    for call in list(calls.values()) * 2:
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < least:
        for name, call in calls.items():
            times[name].append(_milliseconds(call))
    return {name: statistics.median(values) for name, values in times.items()}


def _milliseconds(call: Callable[[], object]) -> float:
    if DEVICE.type == 'cpu':
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    # Short kernels would otherwise take as long as the host needs to launch them.
    torch.cuda._sleep(QUEUED)
    first.record()
    for _ in range(CALLS):
        call()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / CALLS


def graphed(call: Callable[[], object]) -> Callable[[], object]:
    """Return a call that replays a CUDA graph of ``call``: many launches cost the host one."""
    if DEVICE.type == 'cpu':
        return call
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        for _ in range(2):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
