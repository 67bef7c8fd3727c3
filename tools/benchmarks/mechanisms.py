"""Time compressed layers without one of the mechanisms of the CPU kernels at a time.

    python tools/benchmarks/mechanisms.py [--out docs/benchmarks/mechanisms_cpu.json]

Each mechanism costs code, so it must show what it saves. A ratio above 1 says that the layer is
slower without it. Set ``GLIBC_TUNABLES=`` to time with the system's own allocator.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from unittest import mock

import measuring
import torch

from mmwcc.layers import WaveletCompressedConv2d

SHAPES = ((128, 256, 1024), (128, 1024, 256), (64, 144, 24))
"""Size of the map, its channels and the channels of the output."""

_KERNELS = 'mmwcc.kernels.cpu'


def without_reuse() -> AbstractContextManager:
    """Let torch allocate all results."""
    return mock.patch(f'{_KERNELS}.memory._LARGE', sys.maxsize)


def without_checksums() -> AbstractContextManager:
    """Trust that a kernel at the same address has the same values."""
    return mock.patch(f'{_KERNELS}.product._checksums', lambda weight: b'')


@contextmanager
def without_threads() -> Iterator[None]:
    """Run the loops of the kernels, but not the products, on one thread."""
    modules = [
        module
        for name, module in sys.modules.items()
        if name.startswith(_KERNELS) and hasattr(module, 'thread_count')
    ]
    kept = [(module, module.thread_count) for module in modules]
    try:
        for module in modules:
            module.thread_count = lambda count: 1
        yield
    finally:
        for module, thread_count in kept:
            module.thread_count = thread_count


MECHANISMS: dict[str, Callable[[], AbstractContextManager]] = {
    'all': nullcontext,
    'no reuse of memory': without_reuse,
    'no checksums': without_checksums,
    'loops on one thread': without_threads,
}


def measure(size: int, channels: int, outputs: int, seconds: float) -> dict:
    """Time one layer with all mechanisms and without each."""
    layer = WaveletCompressedConv2d(channels, outputs, keep_ratio=0.25).eval()
    x = torch.randn(1, channels, size, size).contiguous(memory_format=torch.channels_last)
    forward = measuring.forward(layer, x)

    def call(without: Callable[[], AbstractContextManager]) -> Callable[[], object]:
        def run() -> object:
            with without():
                return forward()

        return run

    calls = {name: call(without) for name, without in MECHANISMS.items()}
    times = measuring.medians(calls, seconds)
    return dict(size=size, channels=channels, out=outputs, milliseconds=times)


def main() -> None:
    args = measuring.arguments(__doc__, seconds=8).parse_args()
    about = measuring.begin(args, batch=1)
    rows = []
    for shape in SHAPES:
        rows.append(measure(*shape, args.seconds))
        times = rows[-1]['milliseconds']
        print(*shape, *(f'{name} {value:.2f} ms' for name, value in times.items()), sep='  ')
    measuring.write(args.out, 'mechanisms', about, rows)


if __name__ == '__main__':
    measuring.keep_freed_memory()
    main()
