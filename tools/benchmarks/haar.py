"""Time the Haar kernels alone on this machine's CPU.

Measures norms, pack and unpack with 3 levels in float32 at batch 1. Each kernel is compared with
its
memory floor: the time to copy the bytes that it must read and write, at the speed at which this
machine copies 256 MB. A feature map that fits into a cache may be faster than that. Each kernel is
therefore also compared with a copy of the feature map itself, timed in the same turns. Packing
every position is the whole transform, as computed by wavedec2 of ptwt (torch) and of PyWavelets
(NumPy). These two are timed as well if they are installed (`pip install ptwt`).

    python tools/benchmarks/haar.py [--shapes 128,256] [--out haar_cpu.json]
"""

from __future__ import annotations

from importlib.util import find_spec

import measuring
import pywt
import torch
from measuring import FORMATS, fastest, gate, relative_error
from torch import Tensor

from mmwcc import kernels

SHAPES = ((128, 64), (128, 256), (64, 960), (256, 192))
"""Height and width of the map, channels."""

LEVELS = 3


def coefficients_of(x: Tensor) -> Tensor:
    """Return PyWavelets' float64 coefficients of a map in position order, shape (B, N, C)."""
    approximation, *details = pywt.wavedec2(
        x.double().numpy(), 'haar', mode='periodization', level=LEVELS
    )
    bands = [
        torch.stack([torch.from_numpy(band) for band in detail], dim=2).permute(0, 3, 4, 2, 1)
        for detail in details
    ]
    return kernels.fold(torch.from_numpy(approximation).permute(0, 2, 3, 1), bands)


def gate_kernels(x: Tensor) -> Tensor:
    """Stop unless the kernels match PyWavelets; return the slots of all positions."""
    positions = kernels.position_count(*x.shape[2:], LEVELS)
    everything = kernels.slot_of(torch.ones(1, positions, dtype=torch.bool))
    expected = coefficients_of(x)
    rows = kernels.haar_pack(x, everything, positions, LEVELS)
    gate('haar_pack must equal pywt.wavedec2', relative_error(rows, expected), 1e-6)
    gate(
        'haar_norms must equal pywt.wavedec2',
        relative_error(kernels.haar_norms(x, LEVELS), expected.square().sum(-1)),
        1e-6,
    )
    back = kernels.haar_unpack(
        rows, everything, None, *x.shape[2:], LEVELS, kernels.is_channels_last(x)
    )
    gate('haar_unpack must undo haar_pack', relative_error(back, x), 1e-6)
    return everything


def contenders(
    x: Tensor, format: str, everything: Tensor, quarter: Tensor
) -> tuple[measuring.Calls, dict[str, int]]:
    """Return the calls to time for a map in one memory format.

    Also returns the number of bytes that each call must read and write.
    """
    values, positions, channels = x.numel(), everything.shape[1], x.shape[1]
    size, channels_last, target = x.shape[2:], kernels.is_channels_last(x), torch.empty_like(x)
    # The floor writes into allocated memory; `clone` shows what it costs an operator to allocate
    # its result.
    calls = {f'copy {format}': lambda: target.copy_(x), f'clone {format}': x.clone}
    traffic = {f'copy {format}': 8 * values}
    calls[f'norms {format}'] = lambda: kernels.haar_norms(x, LEVELS)
    traffic[f'norms {format}'] = 4 * (values + positions)
    for share, slot, k in (('all', everything, positions), ('quarter', quarter, positions // 4)):
        rows = kernels.haar_pack(x, slot, k, LEVELS)
        calls[f'pack {share} {format}'] = lambda slot=slot, k=k: kernels.haar_pack(
            x, slot, k, LEVELS
        )
        calls[f'unpack {share} {format}'] = lambda slot=slot, rows=rows: kernels.haar_unpack(
            rows, slot, None, *size, LEVELS, channels_last
        )
        traffic |= {
            f'{name} {share} {format}': 4 * (values + positions + k * channels)
            for name in ('pack', 'unpack')
        }
    return calls, traffic


def others(x: Tensor) -> measuring.Calls:
    """Return the transforms of other packages, applied to a contiguous map."""
    array = x.contiguous().numpy()
    calls = dict(pywt=lambda: pywt.wavedec2(array, 'haar', mode='periodization', level=LEVELS))
    if find_spec('ptwt'):
        import ptwt

        calls['ptwt'] = lambda: ptwt.wavedec2(x, 'haar', mode='zero', level=LEVELS)
        gate(
            'ptwt must have the coarsest coefficients of pywt',
            relative_error(calls['ptwt']()[0], torch.from_numpy(calls['pywt']()[0])),
            1e-5,
        )
    return calls


def measure(size: int, channels: int, rate: float, seconds: float) -> dict:
    """Time one map on a machine that copies ``rate`` bytes/s, counting reads and writes."""
    x = torch.randn(1, channels, size, size)
    everything = gate_kernels(x)
    quarter = kernels.select(kernels.haar_norms(x, LEVELS), everything.shape[1] // 4)
    calls, traffic = others(x), {}
    for format, memory_format in FORMATS.items():
        image = x.contiguous(memory_format=memory_format)
        gate_kernels(image)
        more, bytes_of = contenders(image, format, everything, quarter)
        calls, traffic = calls | more, traffic | bytes_of
    times = measuring.medians(calls, seconds)
    copied = 1e3 * max(traffic[f'copy {format}'] / times[f'copy {format}'] for format in FORMATS)
    rates = {
        name: amount / times[name] * 1e3
        for name, amount in traffic.items()
        if not name.startswith('copy')
    }
    floor, of_copy = (
        {name: bytes_per_second / limit for name, bytes_per_second in rates.items()}
        for limit in (rate, copied)
    )
    over = {
        name: times[name] / fastest(times, 'pack all') for name in ('pywt', 'ptwt') if name in times
    }
    shown = '  '.join(
        f'{name} {100 * share:.0f} % ({100 * of_copy[name]:.0f} %)' for name, share in floor.items()
    )
    print(
        f'{size}x{size} {channels:>4}  of floor (of its copy at {copied / 1e9:.1f} GB/s): {shown}  '
        + '  '.join(f'{name} x{ratio:.1f}' for name, ratio in over.items()),
        flush=True,
    )
    return dict(
        size=size,
        channels=channels,
        milliseconds=times,
        copy=copied,
        share_of_floor=floor,
        share_of_copy=of_copy,
        over=over,
    )


def main() -> None:
    parser = measuring.arguments(__doc__, seconds=2.0)
    parser.add_argument(
        '--shapes', nargs='+', metavar='SIZE,C', help='by default those of the documentation'
    )
    args = parser.parse_args()
    about = measuring.begin(
        args,
        batch=1,
        levels=LEVELS,
        ptwt=measuring.version('ptwt'),
        pywt=measuring.version('PyWavelets'),
    )
    shapes = [tuple(map(int, shape.split(','))) for shape in args.shapes] if args.shapes else SHAPES
    rate = measuring.machine_rates()['copy']
    print(f'copy {rate / 1e9:.1f} GB/s')
    measuring.write(
        args.out,
        'haar',
        about,
        [measure(*shape, rate, args.seconds) for shape in shapes],
        copy=rate,
    )


if __name__ == '__main__':
    measuring.keep_freed_memory()
    main()
