"""Time a wavelet compressed convolution against nn.Conv2d on this machine's CPU, forward and training step.

Contenders run interleaved in one process, after a correctness gate; medians are printed and written as JSON with
shapes, dtype, threads, versions and commit. The dense baseline is the faster of its two memory formats.

    python tools/benchmarks/wcc_layer.py [--keep 0.25 0.125] [--threads 2] [--out wcc_layer.json]
"""
from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor, nn

from mmwcc.layers import WaveletCompressedConv2d

SHAPES = ((128, 256, 1024), (128, 1024, 256), (64, 960, 160), (96, 512, 1024), (64, 144, 24))
"""Height and width of the map, input channels, output channels."""

FORMATS = dict(contiguous=torch.contiguous_format, channels_last=torch.channels_last)


def gate(dense: nn.Conv2d, x: Tensor) -> None:
    """Stop unless keeping every coefficient gives the dense convolution."""
    layer = WaveletCompressedConv2d.from_conv2d(dense, keep_ratio=1.0)
    with torch.no_grad():
        expected, got = dense(x), layer(x)
    error = ((got - expected).norm() / expected.norm()).item()
    if not error < 1e-5:
        sys.exit(f'wcc_layer: keep_ratio=1 differs from nn.Conv2d by {error:.1e} (relative), so nothing was timed.')


def forward(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a call that runs inference."""

    def run() -> None:
        with torch.inference_mode():
            layer(x)

    return run


def step(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a call that runs forward and backward, to the input and to the weights."""
    x = x.detach().requires_grad_()
    with torch.no_grad():
        gradient = torch.randn_like(layer(x))

    def run() -> None:
        x.grad = None
        layer.zero_grad(set_to_none=True)
        layer(x).backward(gradient)

    return run


def medians(calls: dict[str, Callable[[], None]], seconds: float) -> dict[str, float]:
    """Time the calls in turns for about ``seconds`` and return the median of each in milliseconds."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 5:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def measure(size: int, channels: int, out: int, keep: list[float], seconds: float) -> list[dict]:
    """Time one shape: a row for forward and one for a training step."""
    dense = nn.Conv2d(channels, out, 1, bias=False)
    images = {name: torch.randn(1, channels, size, size).to(memory_format=format) for name, format in FORMATS.items()}
    gate(dense, images['channels_last'])
    layers = {f'k{ratio:g}': WaveletCompressedConv2d.from_conv2d(dense, keep_ratio=ratio) for ratio in keep}
    rows = []
    for mode, prepare in (('forward', forward), ('training step', step)):
        calls = {f'dense {name}': prepare(dense, x) for name, x in images.items()}
        calls |= {f'{layer} {name}': prepare(layers[layer], x) for layer in layers for name, x in images.items()}
        times = medians(calls, seconds)
        best = min(times[f'dense {name}'] for name in FORMATS)
        ratios = {layer: best / min(times[f'{layer} {name}'] for name in FORMATS) for layer in layers}
        rows.append(dict(size=size, channels=channels, out=out, mode=mode, milliseconds=times, speedup=ratios))
        shown = '  '.join(f'{layer} x{ratio:.2f}' for layer, ratio in ratios.items())
        print(f'{size}x{size} {channels:>4} -> {out:<4}  {mode:<13}  dense {best:7.2f} ms  {shown}', flush=True)
    return rows


def environment() -> dict:
    """Describe what the numbers depend on."""
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True,
                            cwd=Path(__file__).parent, check=False).stdout.strip()
    versions = {name: metadata.version(name) for name in ('torch', 'numba', 'numpy')}
    cpu = next((line.split(':', 1)[1].strip() for line in Path('/proc/cpuinfo').read_text().splitlines()
                if line.startswith('model name')), platform.processor()) if Path('/proc/cpuinfo').exists() else ''
    return dict(cpu=cpu, capability=torch.backends.cpu.get_cpu_capability(), threads=torch.get_num_threads(),
                dtype='float32', batch=1, commit=commit, **versions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--keep', type=float, nargs='+', default=[0.5, 0.25, 0.125], help='keep ratios')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='threads of torch and numba')
    parser.add_argument('--seconds', type=float, default=3.0, help='time for each line')
    parser.add_argument('--out', type=Path, help='JSON file')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    about = environment()
    print(', '.join(f'{key} {value}' for key, value in about.items()))
    rows = [row for shape in SHAPES for row in measure(*shape, args.keep, args.seconds)]
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(dict(environment=about, rows=rows), indent=1) + '\n')


if __name__ == '__main__':
    main()
