"""The common parts of the benchmarks: timing, correctness gates, machine rates, JSON.

Every benchmark is a program of its own. It first checks that what it is about to time computes the
right result. It then times the contenders in turns in one process, so that a change of the
machine's speed affects all of them alike.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    'FORMATS',
    'arguments',
    'begin',
    'environment',
    'fastest',
    'forward',
    'gate',
    'geometric_mean',
    'keep_freed_memory',
    'kernel_time',
    'machine_rates',
    'medians',
    'relative_error',
    'step',
    'version',
    'write',
]

FORMATS = dict(contiguous=torch.contiguous_format, channels_last=torch.channels_last)

# glibc returns every large temporary to the kernel at once, so that page faults of the next one
# take two or three times as long as its computation. These thresholds keep the memory, and use huge
# pages if the system has them.
ALLOCATOR = (
    'glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296:'
    'glibc.malloc.hugetlb=1'
)

# A contender needs some calls until the caches and the allocator are in its own steady state. After
# a single call, a layer on 16 MB still finds what the others left there, and looks up to a fifth
# slower than in consecutive calls.
UNTIMED = 3

Calls = dict[str, Callable[[], object]]


def keep_freed_memory() -> None:
    """Restart this program with :data:`ALLOCATOR`, for all contenders alike.

    If ``GLIBC_TUNABLES`` is already set, it takes precedence.
    """
    if platform.libc_ver()[0] == 'glibc' and 'GLIBC_TUNABLES' not in os.environ:
        os.environ['GLIBC_TUNABLES'] = ALLOCATOR
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def arguments(doc: str, seconds: float) -> argparse.ArgumentParser:
    """Return a parser with the common options ``--threads``, ``--seconds`` and ``--out``."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--threads', type=int, default=torch.get_num_threads(), help='threads of torch and numba'
    )
    parser.add_argument(
        '--seconds', type=float, default=seconds, help='least time for each line, but 3 turns'
    )
    parser.add_argument('--out', type=Path, help='JSON file to write')
    return parser


def begin(args: argparse.Namespace, **more) -> dict:
    """Set threads and random seeds, then print and return the environment."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    about = environment(**more)
    print(', '.join(f'{key} {value}' for key, value in about.items() if value), flush=True)
    return about


def environment(**more) -> dict:
    """Describe the environment on which the numbers depend."""
    versions = {
        name: version(name)
        for name in ('mmwcc', 'torch', 'numba', 'numpy', 'mmcv', 'mmsegmentation')
    }
    forks = {name: version(name) for name in ('onedl-mmcv', 'onedl-mmsegmentation')}
    versions.update({name: number for name, number in forks.items() if number})
    return dict(
        device='cpu',
        cpu=_cpu(),
        capability=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        dtype='float32',
        commit=_commit(),
        python=platform.python_version(),
        **versions,
        kernels=os.environ.get('MMWCC_KERNELS', 'default'),
        allocator=os.environ.get('GLIBC_TUNABLES') or 'system',
        **more,
    )


def _cpu() -> str:
    try:
        from mmwcc.diagnostics import device_name
    except ModuleNotFoundError:  # it needs mmengine, which timing the kernels does not
        return platform.processor() or platform.machine()
    return device_name(torch.device('cpu'))


def _commit() -> str | None:
    if shutil.which('git') is None:
        return None
    command = ['git', 'describe', '--always', '--dirty', '--exclude', '*']
    return subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    ).stdout.strip()


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Return ``||got - expected|| / ||expected||``, in float64."""
    got, expected = got.detach().double(), expected.detach().double()
    return ((got - expected).norm() / expected.norm()).item()


def gate(claim: str, error: float, bound: float) -> None:
    """Stop the program unless ``error`` is below ``bound``; NaN never is."""
    if not error < bound:
        sys.exit(
            f'{Path(sys.argv[0]).stem}: {claim}, but the relative error is {error:.1e} and the '
            f'bound {bound:.0e}, so nothing was timed.'
        )


def medians(calls: Calls, seconds: float, least: int = 3) -> dict[str, float]:
    """Time the calls in turns; return the median of each in milliseconds.

    This takes about ``seconds``, and at least ``least`` turns. Before each timed call, the same
    contender is called :data:`UNTIMED` times.
    """
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < least:
        for name, call in calls.items():
            for _ in range(UNTIMED):
                call()
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def fastest(times: dict[str, float], start: str) -> float:
    """Return the shortest time among ``start`` and its variants, named ``start variant``."""
    return min(
        value for name, value in times.items() if name == start or name.startswith(f'{start} ')
    )


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean of positive values."""
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms))


def forward(layer: nn.Module, *inputs, **keywords) -> Callable[[], Tensor]:
    """Return a call that runs inference."""

    def run() -> Tensor:
        with torch.inference_mode():
            return layer(*inputs, **keywords)

    return run


def step(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a call that runs forward and backward, with gradients of input and weights."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.no_grad():
        gradient = torch.randn_like(layer(x))

    def run() -> None:
        x.grad = None
        layer.zero_grad(set_to_none=True)
        layer(x).backward(gradient)

    return run


def machine_rates(
    seconds: float = 1.0, side: int = 128, channels: int = 512, megabytes: int = 256
) -> dict[str, float]:
    """Measure the rates from which floors are computed.

    They are bytes/s of a copy (read + written), and multiplications x 2/s of a product.

    Args:
        seconds: Time for the copy and for each product.
        side: Height and width of the map whose 1x1 convolution is the product.
        channels: Its input and output channels.
        megabytes: Bytes of the copied tensor / 2**20, beyond every cache by default.
    """
    source = torch.ones(megabytes << 18)
    target = torch.empty_like(source)
    copy = medians(dict(copy=lambda: target.copy_(source)), seconds)['copy']
    rows, weight = torch.randn(side * side, channels), torch.randn(channels, channels)
    image, kernel = (
        rows.reshape(1, side, side, channels).permute(0, 3, 1, 2),
        weight[:, :, None, None],
    )
    rows8, weight8 = rows.mul(40).to(torch.int8), weight.mul(40).to(torch.int8)
    with torch.inference_mode():
        products = medians(
            dict(linear=lambda: F.linear(rows, weight), conv=lambda: F.conv2d(image, kernel)),
            seconds,
        )
        int8 = medians(dict(int8=lambda: torch._int_mm(rows8, weight8)), seconds)['int8']
    flop = 2 * side * side * channels * channels
    return dict(
        copy=2 * source.nbytes / copy * 1e3,
        float32=flop / min(products.values()) * 1e3,
        int8=flop / int8 * 1e3,
    )


def kernel_time(rates: dict[str, float], values: float, products: float = 0) -> float:
    """Return the least time of a float32 kernel in seconds.

    Args:
        rates: The machine's rates.
        values: Number of values that it moves.
        products: Number of pairs that it multiplies.
    """
    return max(4 * values / rates['copy'], 2 * products / rates['float32'])


def write(path: Path | None, benchmark: str, about: dict, rows: list[dict], **more) -> None:
    """Write the result as JSON, if a path is given.

    It holds the benchmark, the environment, the rows, and additional entries.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        rounded = json.loads(
            json.dumps(dict(benchmark=benchmark, environment=about, **more, rows=rows)),
            parse_float=lambda text: float(f'{float(text):.4g}'),
        )
        path.write_text(json.dumps(rounded, indent=1) + '\n')
