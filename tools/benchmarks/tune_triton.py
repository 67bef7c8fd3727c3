"""Find launch configurations of the Triton kernels on this machine's GPU.

Before a candidate is timed, its results must equal those of the shipped default bit for bit. The
candidate with the least geometric mean over the workloads wins. What determines the order of a sum
is not tuned: block and warps of norms, of the depthwise convolution and of the gradient of a clip.

    python tools/benchmarks/tune_triton.py [--out FILE] [--kernels haar_pack select]

The result is written to kernels/triton/configs/<device>.json by default, where mmwcc reads it in
the next process. To use another file, set MMWCC_TRITON_CONFIGS=FILE.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import measuring
import torch
import triton
from gpu_timing import DEVICE, medians
from torch import Tensor

from mmwcc import kernels
from mmwcc.kernels.triton import launch

LEVELS = 3
MAPS = ((16, 144, 64, 128), (8, 512, 96, 96), (4, 1024, 128, 128))
PRODUCTS = ((32768, 256, 1024), (32768, 1024, 256), (8192, 960, 160))  # rows, channels, outputs
SELECTIONS = ((48, 9216), (8, 16384), (8, 65536), (2, 262144))
DTYPES = dict(float32=torch.float32, half=torch.bfloat16)
SPACE = {
    'haar_norms': dict(num_stages=(1, 2, 3, 4)),
    'haar_pack': dict(block=(32, 64, 128), num_warps=(2, 4, 8), num_stages=(1,)),
    'haar_unpack': dict(block=(32, 64, 128), num_warps=(2, 4, 8), num_stages=(1,)),
    'depthwise_haar': dict(num_stages=(1, 2)),
    'gather_rows': dict(rows=(16, 32, 64), block=(64, 128, 256), num_warps=(2, 4, 8)),
    'quantize_int8': dict(pixels=(32, 64, 128), block=(32, 64, 128), num_warps=(2, 4, 8)),
    'fake_quant': dict(block=(1024, 2048, 4096), num_warps=(4, 8)),
    'energy_quant': dict(values=(1024, 2048, 4096), num_warps=(4, 8)),
    'int8_linear': dict(
        block_m=(64, 128),
        block_n=(64, 128, 256),
        block_k=(64, 128),
        group=(8,),
        num_warps=(4, 8),
        num_stages=(3, 4),
    ),
    'select': dict(block=(1024, 2048, 4096, 8192), num_warps=(4, 8, 16)),
}


def map_workloads(kernel: str, dtype: torch.dtype) -> Iterator[Callable[[], Tensor]]:
    """Return calls of a kernel over maps, at keep_ratio 0.25."""
    for shape, memory_format in itertools.product(MAPS, measuring.FORMATS.values()):
        x = torch.randn(shape, device=DEVICE, dtype=dtype).contiguous(memory_format=memory_format)
        yield workload(kernel, x, memory_format == torch.channels_last)


def workload(kernel: str, x: Tensor, channels_last: bool) -> Callable[[], Tensor]:
    norms = kernels.haar_norms(x, LEVELS)
    k, step = max(1, norms.shape[1] // 4), torch.full((1,), 0.05, device=DEVICE)
    slot = kernels.select(norms, k)
    quantizer = (
        torch.ones(1, device=DEVICE),
        torch.ones(1, dtype=torch.bool, device=DEVICE),
        8,
        False,
        True,
        1.0,
    )
    rows = kernels.haar_pack(x, slot, k, LEVELS)
    clips = torch.linspace(1.5, 3.5, 7, device=DEVICE)
    by_energy = (clips, quantizer[1], 4 * k, (0, 3, 4, 5, 6, 8), False)
    weight = torch.randn(x.shape[1], 1, 3, 3, device=DEVICE, dtype=x.dtype)
    stored = torch.randn(*norms.shape, x.shape[1], device=DEVICE, dtype=x.dtype)
    return {
        'haar_norms': lambda: kernels.haar_norms(x, LEVELS),
        'haar_pack': lambda: kernels.haar_pack(x, slot, k, LEVELS),
        'haar_unpack': lambda: kernels.haar_unpack(
            rows, slot, None, *x.shape[2:], LEVELS, channels_last
        ),
        'depthwise_haar': lambda: torch.cat(
            [part.flatten().float() for part in kernels.depthwise_haar(x, weight, None, LEVELS)]
        ),
        'gather_rows': lambda: kernels.gather_rows(stored, slot, k),
        'quantize_int8': lambda: kernels.quantize_int8(x, step, -127, 127),
        'fake_quant': lambda: kernels.fake_quant(x, *quantizer),
        'energy_quant': lambda: kernels.energy_quant(rows, *by_energy),
    }[kernel]


def product_workloads() -> Iterator[Callable[[], Tensor]]:
    """Return calls of int8_linear."""
    for count, channels, outputs in PRODUCTS:
        rows = torch.randint(-128, 128, (1, count, channels), dtype=torch.int8, device=DEVICE)
        weight = torch.randint(-128, 128, (outputs, channels), dtype=torch.int8, device=DEVICE)
        scale = torch.rand(outputs, device=DEVICE).to(torch.bfloat16)
        yield lambda rows=rows, weight=weight, scale=scale: kernels.int8_linear(rows, weight, scale)


def candidates(kernel: str) -> list[dict[str, int]]:
    space = SPACE[kernel]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]


def measure(calls: list[Callable[[], Tensor]], table: dict, expected: list[Tensor]) -> float:
    """Return the geometric mean of the times under a table of configurations.

    It is infinity if a result differs in any bit, or if a configuration is too large.
    """
    try:
        with launch.forced(table):
            for call, result in zip(calls, expected, strict=True):
                if not torch.equal(call(), result):
                    return float('inf')
            return measuring.geometric_mean(
                medians(dict(call=call), 0.02, 3)['call'] for call in calls
            )
    except triton.runtime.errors.OutOfResources:
        return float('inf')


def tune(kernel: str, kind: str, calls: list[Callable[[], Tensor]], table: dict) -> dict[str, int]:
    """Return the best values for a kernel and kind of dtype.

    If nothing is faster, these are the values of ``table``.
    """
    default = table[kernel][kind]
    with launch.forced(table):
        expected = [call() for call in calls]
    best, least = default, measure(calls, table, expected)
    print(f'{kernel} {kind}: default {default} {least:.3f} ms', flush=True)
    for values in candidates(kernel):
        trial = {**table, kernel: {**table[kernel], kind: {**default, **values}}}
        milliseconds = measure(calls, trial, expected)
        if milliseconds < 0.98 * least:  # less is noise
            best, least = trial[kernel][kind], milliseconds
            print(f'{kernel} {kind}: {values} {least:.3f} ms', flush=True)
    return best


def tune_select(table: dict) -> dict[str, int]:
    """Tune the ways of selecting with one program for an image and with many.

    Also find the number of positions up to which one program is faster.
    """

    def calls(images_and_positions):
        for batch, positions in images_and_positions:
            norms = torch.rand(batch, positions, device=DEVICE)
            yield lambda norms=norms: kernels.select(norms, norms.shape[1] // 4)

    def forced(values: dict, one: bool, **more) -> dict:
        way = dict(one_program=2**30) if one else dict(one_program=0, one_block=0)
        return {**table, 'select': dict(float32={**values, **way, 'many_images': 2**30, **more})}

    works, shipped = list(calls(SELECTIONS)), table['select']['float32']
    one = tune('select', 'float32', works, forced(shipped, True, one_block=0))
    best = {**shipped, 'block': one['block'], 'num_warps': one['num_warps']}
    least = float('inf')
    for values in candidates('select'):
        trial = {**best, 'many_block': values['block'], 'many_warps': values['num_warps']}
        with launch.forced(forced(trial, False)):
            milliseconds = measuring.geometric_mean(
                medians(dict(call=call), 0.02, 3)['call'] for call in works
            )
        if milliseconds < least:
            many, least = trial, milliseconds
    limit = 0
    for work, (_, positions) in sorted(
        zip(works, SELECTIONS, strict=True), key=lambda pair: pair[1][1]
    ):
        times = []
        for way in (True, False):
            with launch.forced(forced(many, way)):
                times.append(medians(dict(call=work), 0.05, 3)['call'])
        if times[0] > times[1]:
            break
        limit = positions
    return {**many, 'one_program': limit, 'one_block': min(limit, many['one_block'])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--kernels', nargs='+', choices=SPACE, default=list(SPACE), help='which; all by default'
    )
    parser.add_argument('--out', type=Path, help='file to write')
    args = parser.parse_args()
    if DEVICE.type != 'cuda' and args.out is None:
        parser.error('needs a GPU, got none. Name a file with --out to try it in the interpreter.')
    default = launch.CONFIGS / ('hip.json' if torch.version.hip else 'cuda.json')
    table = launch.read_configurations(default)
    found: dict[str, dict[str, dict[str, int]]] = {}
    for kernel in args.kernels:
        if kernel == 'select':
            found[kernel] = dict(float32=tune_select(table))
        elif kernel == 'int8_linear':
            found[kernel] = dict(int8=tune(kernel, 'int8', list(product_workloads()), table))
        else:
            found[kernel] = {
                kind: tune(kernel, kind, list(map_workloads(kernel, dtype)), table)
                for kind, dtype in DTYPES.items()
            }
    name = torch.cuda.get_device_name() if DEVICE.type == 'cuda' else 'interpreter'
    about = dict(
        device=name,
        method='timed by tools/benchmarks/tune_triton.py',
        torch=torch.__version__,
        triton=triton.__version__,
        commit=measuring.environment()['commit'],
    )
    out = args.out or launch.CONFIGS / f'{launch.device_name()}.json'
    lines = ',\n'.join(
        f'  {json.dumps(kernel)}: {json.dumps(kinds)}' for kernel, kinds in found.items()
    )
    out.write_text(
        f'{{\n "about": {json.dumps(about)},\n "kernels": {{\n{lines}\n }}\n}}\n', encoding='utf-8'
    )
    print(f'Wrote {out}.')


if __name__ == '__main__':
    main()
