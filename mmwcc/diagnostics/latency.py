"""Measured latency and memory of a model on this machine, and its dense twin for comparison."""

from __future__ import annotations

import copy
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmwcc.layers import CompressedLayerMixin, check_parameters
from mmwcc.model_tree import replace_layers

__all__ = ['Latency', 'dense_twin', 'device_name', 'measure_latency', 'peak_memory']


@dataclass(frozen=True)
class Latency:
    """Time of one call.

    Attributes:
        median: Median in milliseconds.
        p95: 95th percentile in milliseconds.
    """

    median: float
    p95: float


def dense_twin(model: nn.Module) -> nn.Module:
    """Return a copy of a model that has dense layers in place of compressed ones.

    The copy is built from the layers and not from a config, so it does not matter how they were
    compressed.

    Args:
        model: Any module.

    Returns:
        The twin. Its parameters are those of ``model``, not copies. Its buffers are copies.

    Raises:
        ValueError: If a compressed layer computes its weight or bias from other tensors.
    """
    for layer in model.modules():
        if isinstance(layer, CompressedLayerMixin):
            check_parameters('dense_twin', layer)
    shared = {id(parameter): parameter for parameter in model.parameters()}
    twin = copy.deepcopy(model, shared)
    made: dict[nn.Module, nn.Module] = {
        layer: _dense(layer) for layer in twin.modules() if isinstance(layer, CompressedLayerMixin)
    }
    replace_layers(twin, made)
    return made.get(twin, twin)


def _dense(layer: CompressedLayerMixin) -> nn.Module:
    """Return the dense layer that a compressed layer stands for."""
    kind: Any = nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d
    # The weights are replaced at once, so spend no memory and no random numbers on them.
    with torch.device('meta'):
        dense = kind(**layer.geometry())
    dense.weight, dense.bias = layer.weight, layer.bias
    return dense.train(layer.training)


def measure_latency(
    calls: Mapping[str, Callable[[], Any]],
    device: torch.device,
    *,
    repeats: int = 20,
    warmup: int = 3,
    on_repeat: Callable[[], None] = lambda: None,
) -> dict[str, Latency]:
    """Time several calls in turns, so that changes of the machine's speed affect them all alike.

    An untimed call of the same function precedes each timed one, so that the caches do not hold
    what another function left there. On CUDA devices, the time is measured between two events on
    the current stream.

    Args:
        calls: The functions to time, by name.
        device: Where they run.
        repeats: Number of timed calls of each. Defaults to 20.
        warmup: Number of untimed calls of each at the start. Defaults to 3.
        on_repeat: Called after each function was timed once more. Defaults to a function that does
            nothing.
    """
    for call in calls.values():
        for _ in range(warmup):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    timer = _cuda_time if device.type == 'cuda' else _cpu_time
    for _ in range(repeats):
        for name, call in calls.items():
            call()
            times[name].append(timer(call, device))
        on_repeat()
    return {
        name: Latency(statistics.median(values), _p95(values)) for name, values in times.items()
    }


def _cpu_time(call: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def _cuda_time(call: Callable[[], Any], device: torch.device) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    stream = torch.cuda.current_stream(device)
    torch.cuda.synchronize(device)
    begin.record(stream)
    call()
    end.record(stream)
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end)


def _p95(values: list[float]) -> float:
    return (
        statistics.quantiles(values, n=20, method='inclusive')[-1] if len(values) > 1 else values[0]
    )


def peak_memory(call: Callable[[], Any]) -> int:
    """Return the peak number of bytes in tensors during a call, apart from tensors made before it.

    The function follows the operators that torch dispatches one by one. This is exact and works the
    same way on every device. It also leaves the statistics of CUDA's allocator alone, which cannot
    be restored once they are reset. Memory that an operator allocates and frees internally does not
    count, such as workspaces of cuDNN and oneDNN or tiles of the kernels here.

    Example:
        >>> x = torch.zeros(1000)
        >>> peak_memory(lambda: (x + 1).abs_() + x)  # two tensors of 4000 bytes
        8000
    """
    with _LiveBytes() as live:
        call()
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Track the total size of the storages that operators return, as long as they are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        # Holding a weak reference prevents the address of its storage from being reused.
        self._before: dict[int, StorageWeakRef] = {}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
        for storage in _storages((args, kwargs)):
            if storage._cdata not in self._live:
                self._before.setdefault(storage._cdata, StorageWeakRef(storage))
        result = func(*args, **kwargs)
        for storage in _storages(result):
            if storage._cdata not in self._before:
                self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)]


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or of this machine's processor for other devices."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')),
        platform.processor(),
    )
