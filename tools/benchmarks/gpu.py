"""Check and time the Triton kernels on this machine's GPU.

Measures the device's ceilings, the kernels, selection, and the paper's Table 8. Needs only torch,
triton and numpy (`pip install --no-deps --no-build-isolation -e .`), and about five minutes. First
every kernel is checked against float64. What is wrong is named, and the rest goes on; the exit
status is 1 then. The file is written after every section, so that nothing is lost that was seen.

The floor of a kernel is the time to copy as many bytes on this device. Blocks are replayed as CUDA
graphs, so that launches take no time of the host. In Table 8 the dense block is timed with cuDNN in
the faster of the two memory formats; torch.compile of it comes last, since it takes longest.

    python tools/benchmarks/gpu.py [--out gpu_h200.json] [--rows 0 4 12] [--modes bf16] \\
        [--no-compile] [--minutes 4.5]

To try the program itself without a GPU, use TRITON_INTERPRET=1 MMWCC_KERNELS=triton and tiny
shapes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import measuring
import torch
import triton
from gpu_blocks import MODES, Block, dense_block, floor_ratio, plain_depthwise, wcc_block
from gpu_checks import FAILED, check, expect
from gpu_timing import DEVICE, graphed, medians
from measuring import FORMATS, relative_error
from table8 import ROWS
from torch import Tensor

from mmwcc import kernels
from mmwcc.kernels.dispatch import chosen_path

LEVELS = 3
SHAPES = ((48, 512, 96, 96), (16, 256, 128, 128))  # maps on which single kernels are timed
SELECTIONS = ((48, 9216), (8, 65536), (2, 262144), (96, 65536))  # images, positions
COPY_BYTES, PRODUCT = 1 << 30, 8192


class Report:
    """What was found so far; a file has it after every section.

    Attributes:
        end: When no more work is begun, by :func:`time.perf_counter`.
        found: Results by name, as they are written.
    """

    def __init__(self, path: Path | None, about: dict, minutes: float) -> None:
        self.path, self.about = path, about
        self.end = time.perf_counter() + 60 * minutes
        self.found: dict = dict(
            wrong=FAILED, errors=[], rates={}, kernels=[], selection=[], left_out=[], rows=[]
        )

    def run(self, section: Callable[[Report], None]) -> None:
        """Run a section. An error ends that section, not the program."""
        try:
            section(self)
        except Exception:
            self.found['errors'].append(f'{section.__name__}: {traceback.format_exc()}')
            print(self.found['errors'][-1], flush=True)
        self.write()

    def has_time(self, work: str) -> bool:
        """Tell whether there is time to begin something, and note it if not."""
        if time.perf_counter() < self.end:
            return True
        self.found['left_out'].append(work)
        return False

    def write(self) -> None:
        """Write everything found so far."""
        found = dict(self.found)
        measuring.write(self.path, 'gpu', self.about, found.pop('rows'), **found)


def check_kernels(report: Report) -> None:
    """Compare the kernels with their references."""
    check()
    print(f'{len(FAILED)} claims are wrong' if FAILED else 'every kernel is right', flush=True)


def measure_ceilings(report: Report) -> None:
    """Measure bytes/s of a copy (read + written) and multiplications x 2/s of large products."""
    rates, size = report.found['rates'], PRODUCT
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    copy = medians(dict(copy=lambda: target.copy_(source)), 0.3)['copy']
    rates['copy'] = 2e3 * COPY_BYTES / copy
    for name, dtype, tf32 in (
        ('fp32', torch.float32, False),
        ('tf32', torch.float32, True),
        ('bf16', torch.bfloat16, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = torch.randn(2, size, size, device=DEVICE).to(dtype)
        rates[name] = 2e3 * size**3 / medians({name: lambda a=a, b=b: a @ b}, 0.3, 3)[name]
    torch.backends.cuda.matmul.allow_tf32 = False  # as torch has it
    a8, b8 = (
        torch.randint(-128, 128, (size, size), dtype=torch.int8, device=DEVICE) for _ in range(2)
    )
    int8 = medians(dict(int8=lambda: torch._int_mm(a8, b8.t())), 0.3, 3)['int8']
    rates['int8'] = 2e3 * size**3 / int8
    print(', '.join(f'{key} {value / 1e12:.2f} T/s' for key, value in rates.items()), flush=True)


def time_kernels(report: Report) -> None:
    """Time single kernels next to their floors: the bytes they must move, at copy speed."""
    copy = report.found['rates']['copy']
    for shape in SHAPES:
        for dtype in (torch.bfloat16, torch.float32):
            for name, memory_format in FORMATS.items():
                if not report.has_time(f'kernels {shape} {str(dtype)[6:]} {name}'):
                    continue
                x = torch.randn(shape, device=DEVICE, dtype=dtype).contiguous(
                    memory_format=memory_format
                )
                for kernel, (call, moved) in _kernel_calls(x, name == 'channels_last').items():
                    report.found['kernels'].append(
                        _kernel_result(kernel, call, moved, copy, shape, dtype, name)
                    )
                del x


def _kernel_calls(x: Tensor, channels_last: bool) -> dict[str, tuple[Callable[[], object], float]]:
    """Return each kernel's call over a map, and the bytes it moves at keep_ratio 0.25."""
    norms = kernels.haar_norms(x, LEVELS)
    k = norms.shape[1] // 4
    slot, step = kernels.select(norms, k), torch.full((1,), 0.05, device=DEVICE)
    rows, weight = (
        kernels.haar_pack(x, slot, k, LEVELS),
        torch.randn(x.shape[1], 1, 3, 3, device=DEVICE, dtype=x.dtype),
    )
    quantizer = (
        torch.ones(1, device=DEVICE),
        torch.ones(1, dtype=torch.bool, device=DEVICE),
        8,
        False,
        True,
        1.0,
    )
    coefficients, _ = kernels.depthwise_haar(x, weight, None, LEVELS)
    size, whole, kept = x.shape[2:], x.nbytes, rows.nbytes
    return {
        'haar_norms': (lambda: kernels.haar_norms(x, LEVELS), whole),
        'haar_pack': (lambda: kernels.haar_pack(x, slot, k, LEVELS), whole + kept),
        'haar_pack_int8': (
            lambda: kernels.haar_pack_int8(x, slot, k, LEVELS, step, -127, 127),
            whole + rows.numel(),
        ),
        'haar_unpack': (
            lambda: kernels.haar_unpack(rows, slot, None, *size, LEVELS, channels_last),
            whole + kept,
        ),
        'haar_unpack + residual': (
            lambda: kernels.haar_unpack(rows, slot, None, *size, LEVELS, channels_last, x),
            2 * whole + kept,
        ),
        'depthwise_haar 3x3': (lambda: kernels.depthwise_haar(x, weight, None, LEVELS), 2 * whole),
        'gather_rows': (lambda: kernels.gather_rows(coefficients, slot, k), 2 * kept),
        'fake_quant': (lambda: kernels.fake_quant(x, *quantizer), 2 * whole),
        'fake_quant_backward': (
            lambda: kernels.fake_quant_backward(x, x, *quantizer),
            2 * whole,
        ),  # both read x
        'quantize_int8': (lambda: kernels.quantize_int8(x, step, -127, 127), whole + x.numel()),
    }


def _kernel_result(
    kernel: str,
    call: Callable,
    moved: float,
    copy: float,
    shape: tuple,
    dtype: torch.dtype,
    memory_format: str,
) -> dict:
    milliseconds, floor = medians({kernel: call}, 0.05)[kernel], 1e3 * moved / copy
    print(
        f'{kernel:24s} {str(dtype)[6:]:9s}{memory_format:14s}{str(shape):22s}{milliseconds:8.3f} '
        f'ms  {100 * floor / milliseconds:5.1f} % of the floor',
        flush=True,
    )
    return dict(
        kernel=kernel,
        dtype=str(dtype)[6:],
        memory_format=memory_format,
        shape=list(shape),
        milliseconds=milliseconds,
        floor=floor,
        share=floor / milliseconds,
    )


def time_selection(report: Report) -> None:
    """Time select next to torch.topk.

    topk breaks ties arbitrarily and does not number the kept positions.
    """
    for batch, positions in SELECTIONS:
        norms, k = torch.rand(batch, positions, device=DEVICE), positions // 4
        times = medians(
            dict(
                select=lambda norms=norms, k=k: kernels.select(norms, k),
                topk=lambda norms=norms, k=k: norms.topk(k, sorted=False),
            ),
            0.1,
        )
        print(
            f'select {batch:3d} x {positions:6d}: {times["select"]:.3f} ms, topk '
            f'{times["topk"]:.3f} ms',
            flush=True,
        )
        found = dict(images=batch, positions=positions, k=k, milliseconds=times)
        report.found['selection'].append(found)


class Table:
    """The blocks of Table 8, as far as the arguments choose them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.modes = args.modes
        self.rows = [row for n, row in enumerate(ROWS) if args.rows is None or n in args.rows]

    def shapes(self, report: Report, what: str) -> Iterator[tuple[str, tuple, list]]:
        """Yield mode, shape and rows of each block for which there is time."""
        for mode in self.modes:
            for shape, rows in groupby(self.rows, key=lambda row: row[:4]):
                if report.has_time(f'{what} {mode} {shape}'):
                    torch.backends.cudnn.allow_tf32 = mode != 'fp32'
                    yield mode, shape, list(rows)

    def time(self, report: Report) -> None:
        """Time the dense blocks, and the compressed ones at every keep ratio in the table."""
        for mode, shape, rows in self.shapes(report, 'block'):
            try:
                report.found['rows'] += _time_shape(mode, shape, rows, report.found['rates'])
            except torch.OutOfMemoryError:
                report.found['left_out'].append(f'block {mode} {shape}, which needs more memory')
            report.write()

    def time_compiled(self, report: Report) -> None:
        """Time torch.compile of the dense blocks that were timed, and compare with it."""
        for mode, shape, _ in self.shapes(report, 'compiled block'):
            mine = [
                row
                for row in report.found['rows']
                if (row['mode'], *list(row.values())[1:5]) == (mode, *shape)
            ]
            if not mine:
                continue
            try:
                compiled = _time_compiled(mode, shape)
            except torch.OutOfMemoryError:
                report.found['left_out'].append(f'compiled block {mode} {shape}, for memory')
                continue
            print(f'{mode} {shape}: {compiled:.3f} ms compiled', flush=True)
            for row in mine:
                times = row['milliseconds']
                times['dense compiled'] = compiled
                row['over_best'] = measuring.fastest(times, 'dense') / times['wcc']
            report.write()


def _maps(mode: str, shape: tuple) -> dict[str, Tensor]:
    """Return the input of a block in both memory formats."""
    size, channels, _, batch = shape
    x = torch.randn(batch, channels, size, size, device=DEVICE, dtype=MODES[mode].dtype)
    return {name: x.contiguous(memory_format=format_) for name, format_ in FORMATS.items()}


def _time_compiled(mode: str, shape: tuple) -> float:
    """Return the time of the compiled dense block in milliseconds."""
    torch._dynamo.reset()
    block, fast = Block.make(*shape[1:3], mode, DEVICE), torch.compile(dense_block)
    with torch.inference_mode():
        x = _maps(mode, shape)['channels_last']
        return medians(dict(compiled=lambda: fast(block, x)), 0.1, 3)['compiled']


def _time_shape(mode: str, shape: tuple, rows: list, rates: dict[str, float]) -> list[dict]:
    """Time the dense block once, and the compressed one at every keep ratio in the table."""
    block = Block.make(*shape[1:3], mode, DEVICE)
    with torch.inference_mode():
        maps = _maps(mode, shape)
        x = maps['channels_last']
        whole, dense = wcc_block(block, x[:1], 1.0, mode), dense_block(block, x[:1])
        bound = dict(fp32=1e-5, tf32=5e-3).get(mode, 5e-2 if 'int8' in mode else 2e-2)
        claim = f'keep_ratio=1 equals the dense block, {mode} {shape}'
        expect(claim, relative_error(whole, dense), bound)
        calls = {f'dense {name}': lambda x=x: dense_block(block, x) for name, x in maps.items()}
        calls['dense, own depthwise'] = lambda: dense_block(block, x, plain_depthwise)
        for row in rows:
            calls[f'wcc {row.keep_ratio:g}'] = lambda ratio=row.keep_ratio: wcc_block(
                block, x, ratio, mode
            )
        times = medians({name: graphed(call) for name, call in calls.items()}, 0.2, 3)
    return [_block_result(mode, row, times, rates) for row in rows]


def _block_result(mode: str, row, times: dict[str, float], rates: dict[str, float]) -> dict:
    """Compare one compressed block with the dense ones."""
    wcc, dense = times[f'wcc {row.keep_ratio:g}'], measuring.fastest(times, 'dense')
    eager = min(times[f'dense {name}'] for name in FORMATS)
    floor = floor_ratio(row, mode, rates)
    print(
        f'{mode:9s} {row.size:3d}^2 {row.channels:4d} x{row.expansion} B{row.batch:<3d} k '
        f'{row.keep_ratio:<6g}: {wcc:8.3f} ms, x{eager / wcc:.2f} of eager, x{dense / wcc:.2f} '
        f'of the best dense; floors x{floor:.2f}, paper x{row.paper:.2f}',
        flush=True,
    )
    contenders = {name: value for name, value in times.items() if name.startswith('dense')}
    return dict(
        mode=mode,
        **row._asdict(),
        milliseconds={**contenders, 'wcc': wcc},
        over_eager=eager / wcc,
        over_best=dense / wcc,
        floor=floor,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--rows', type=int, nargs='+', help='rows of Table 8, from 0; all by default'
    )
    parser.add_argument(
        '--modes', nargs='+', choices=MODES, default=[mode for mode in MODES if mode != 'fp32']
    )
    parser.add_argument(
        '--no-compile', dest='compile', action='store_false', help='leave out torch.compile'
    )
    parser.add_argument(
        '--minutes', type=float, default=4.5, help='begin nothing new after that long'
    )
    parser.add_argument('--out', type=Path, help='JSON file to write')
    args = parser.parse_args()
    if chosen_path(DEVICE.type) != 'triton':
        parser.error(
            'needs a GPU and Triton, got neither. Set TRITON_INTERPRET=1 and MMWCC_KERNELS=triton '
            'to try it on the CPU.'
        )
    torch.manual_seed(0)
    about = dict(
        measuring.environment(),
        dtype='as stated',
        triton=triton.__version__,
        device=torch.cuda.get_device_name() if DEVICE.type == 'cuda' else 'interpreter',
        cuda=torch.version.cuda or torch.version.hip,
        configs=os.environ.get('MMWCC_TRITON_CONFIGS', 'shipped'),
    )
    print(', '.join(f'{key} {value}' for key, value in about.items() if value), flush=True)
    report, table = Report(args.out, about, args.minutes), Table(args)
    sections = [check_kernels, measure_ceilings, time_kernels, time_selection, table.time]
    for section in sections + [table.time_compiled] * args.compile:
        report.run(section)
    for kind in ('left_out', 'wrong', 'errors'):
        for line in report.found[kind]:
            print(f'{kind}: {line}')
    sys.exit(bool(FAILED or report.found['errors']))


if __name__ == '__main__':
    main()
