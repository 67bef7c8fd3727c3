"""What the CPU kernels allocate beside their results, and what becomes of it."""

import importlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

pytest.importorskip('numba', reason='the references allocate all coefficients')

STATUS = Path('/proc/self/status')
PROGRAM = """
import re, torch
from mmwcc import kernels

torch.set_num_threads(2)
# Not resource.getrusage: its peak is at least that of the process that started this one.
peak = lambda: 1024 * int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])


def run(x, channels_last):
    height, width = x.shape[2:]
    k = height * width // 4
    yield 'norms', lambda: kernels.haar_norms(x, 3)
    slot = kernels.select(kernels.haar_norms(x, 3), k)
    yield 'pack', lambda: kernels.haar_pack(x, slot, k, 3)
    yield 'shrink', lambda: kernels.haar_shrink(x, k, 3)[0]
    yield 'pack int8', lambda: kernels.haar_pack_int8(x, slot, k, 3, torch.tensor(0.1), -128, 127)
    rows = kernels.haar_pack(x, slot, k, 3)
    arguments = slot, None, height, width, 3, channels_last, x, 0.0, 6.0
    yield 'unpack', lambda: kernels.haar_unpack(rows, *arguments)


for name, memory_format in zip(
    ('contiguous', 'channels_last'), (torch.contiguous_format, torch.channels_last)
):
    small = torch.randn(1, 16, 16, 16).to(memory_format=memory_format)
    for _, call in run(small, name == 'channels_last'):
        call()  # compiled, or loaded
    # 127 MB, borders on both sides
    x = torch.empty(1, 512, 250, 254).to(memory_format=memory_format).fill_(1.0)
    for operator, call in run(x, name == 'channels_last'):
        before = peak()
        result = call()
        print(f'{name} {operator}', peak() - before - result.nbytes)
    del x
"""


@pytest.mark.skipif(not STATUS.exists(), reason='needs the peak memory that Linux reports')
def test_kernels_allocate_their_results_only():
    """The peak of a process only grows, so the cases run from small results to large ones."""
    result = subprocess.run([sys.executable, '-c', PROGRAM], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = [line.rsplit(' ', 1) for line in result.stdout.splitlines()]
    assert [name for name, _ in lines] == [
        f'{layout} {operator}'
        for layout in ('contiguous', 'channels_last')
        for operator in ('norms', 'pack', 'shrink', 'pack int8', 'unpack')
    ]
    for name, extra in lines:
        assert int(extra) < 12e6, (
            f'{name}: {int(extra) / 1e6:.0f} MB beside the result, the map has 130'
        )


def test_arrays_share_the_memory_of_their_tensor_and_keep_it_alive(memory):
    x = torch.arange(12.0).reshape(3, 4)
    array, values = memory.array_of(x), memory.values_of(x.t())
    assert array.shape == (3, 4) and values.tolist() == list(range(12))
    array[0, 0] = 7
    assert x[0, 0] == 7
    del x
    assert array.sum() == 73
    assert memory.array_of(torch.empty(0, 3)).shape == (0, 3)


def test_memory_that_was_freed_is_an_error(memory):
    x = torch.ones(2, 3)
    x.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match=r'a tensor of shape \(2, 3\) has no memory'):
        memory.array_of(x)


@pytest.fixture
def memory(monkeypatch):
    module = importlib.import_module('mmwcc.kernels.cpu.memory')
    monkeypatch.setattr(module, '_freed', {})
    return module


def test_a_freed_tensor_hands_its_memory_on(memory):
    count = memory._LARGE // 4
    first, other = memory.empty((count,)), memory.empty((count,))
    place = first.data_ptr()
    part = first[5:]
    del first
    assert memory.empty((count,)).data_ptr() not in (
        place,
        other.data_ptr(),
    )  # the part still needs it
    del part
    again = memory.empty((2, count // 2))
    assert again.data_ptr() == place and again.shape == (2, count // 2) and place % 64 == 0
    assert memory.empty((count + 1,)).data_ptr() != place


def test_kept_memory_is_bounded(memory, monkeypatch):
    large = memory._LARGE
    monkeypatch.setattr(memory, '_KEPT', 3 * large)
    tensors = [
        memory.empty((size,), torch.uint8) for size in (large, large + 1, large + 2, 4 * large)
    ]
    sizes = [tensor.nbytes + 64 for tensor in tensors]
    while tensors:
        del tensors[0]
    assert [kept.nbytes for kept in memory._freed.values()] == sizes[
        1:3
    ]  # the last is too large, the first too old


def test_threads_do_not_share_memory(memory):

    def work(thread: int) -> bool:
        for _ in range(200):
            tensor = memory.empty((memory._LARGE,), torch.uint8).fill_(thread)
            if not bool((tensor == thread).all()):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
