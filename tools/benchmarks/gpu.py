"""Check and time the Triton kernels on this machine's GPU.

Measures the device's ceilings, the kernels, selection, and the paper's Table 8. Needs only torch,
triton and numpy (`pip install --no-deps --no-build-isolation -e .`), and less than five minutes.
Nothing is timed before every kernel has been checked against float64. The floor of a kernel is the
time to copy as many bytes on this device. In Table 8 the dense block is timed with cuDNN in the
faster of the two memory formats.

    python tools/benchmarks/gpu.py [--out gpu_h200.json] [--rows 0 4 12] [--modes bf16] \\
        [--no-compile] [--minutes 4.5]

To try the program itself without a GPU, use TRITON_INTERPRET=1 MMWCC_KERNELS=triton and tiny
shapes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import measuring
import torch
import torch.nn.functional as F
import triton
from gpu_blocks import MODES, Block, dense_block, floor_ratio, plain_depthwise, wcc_block
from measuring import FORMATS, gate, relative_error
from table8 import ROWS
from torch import Tensor

from mmwcc import kernels
from mmwcc.kernels.dispatch import chosen_path

LEVELS = 3
SHAPES = ((48, 512, 96, 96), (16, 256, 128, 128))  # maps on which single kernels are timed
SELECTIONS = ((48, 9216), (8, 65536), (2, 262144))  # images, positions
GATE = (
    ((2, 24, 17, 9), torch.float32, 'contiguous'),
    ((2, 24, 17, 9), torch.float32, 'channels_last'),
    ((1, 144, 8, 40), torch.bfloat16, 'contiguous'),
    ((1, 960, 16, 24), torch.float16, 'channels_last'),
    ((1, 960, 24, 8), torch.bfloat16, 'channels_last'),
)
BOUNDS = {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}
COPY_BYTES, PRODUCT = 1 << 30, 8192
DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def medians(
    calls: dict[str, Callable[[], object]], seconds: float, least: int = 5
) -> dict[str, float]:
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
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    # Three calls for each measurement, so that the host runs ahead of the device, as in a network.
    start.record()
    for _ in range(3):
        call()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 3


def ceilings() -> dict[str, float]:
    """Measure bytes/s of a copy (read + written) and multiplications x 2/s of large products."""
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=DEVICE)
    target, size = torch.empty_like(source), PRODUCT
    rates = dict(
        copy=2e3 * COPY_BYTES / medians(dict(copy=lambda: target.copy_(source)), 0.3)['copy']
    )
    for name, dtype, tf32 in (
        ('fp32', torch.float32, False),
        ('tf32', torch.float32, True),
        ('bf16', torch.bfloat16, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = torch.randn(2, size, size, device=DEVICE).to(dtype)
        rates[name] = 2e3 * size**3 / medians({name: lambda a=a, b=b: a @ b}, 0.3, 3)[name]
    a8, b8 = (
        torch.randint(-128, 128, (size, size), dtype=torch.int8, device=DEVICE) for _ in range(2)
    )
    rates['int8'] = (
        2e3 * size**3 / medians(dict(int8=lambda: torch._int_mm(a8, b8.t())), 0.3, 3)['int8']
    )
    return rates


def check() -> None:
    """Stop unless every kernel equals its float64 reference.

    The reference implementations are those used for other dtypes and for float64 input.
    """
    for shape, dtype, memory_format in GATE:
        x = torch.randn(shape, device=DEVICE, dtype=dtype).contiguous(
            memory_format=FORMATS[memory_format]
        )
        _check_map(x, BOUNDS[dtype])
    for n in (5000, 40000):
        norms = torch.randint(0, 50, (3, n), device=DEVICE).float()
        slot = kernels.select(norms, n // 3)
        gate(
            'select must keep what the reference keeps',
            relative_error(slot, kernels.select(norms.double(), n // 3)),
            1e-12,
        )
    rows, weight = (
        torch.randint(-128, 128, (2, 90, 144), dtype=torch.int8, device=DEVICE) for _ in range(2)
    )
    scale = torch.rand(90, device=DEVICE)
    gate(
        'int8_linear must be exact',
        relative_error(
            kernels.int8_linear(rows, weight[0], scale),
            (rows.double() @ weight[0].double().t()) * scale,
        ),
        1e-6,
    )


def _check_map(x: Tensor, bound: float) -> None:
    """Check the kernels over one map, each given the same input as its reference."""
    exact, size, channels_last = x.double(), x.shape[2:], x.stride(1) == 1
    norms = kernels.haar_norms(x, LEVELS)
    gate('haar_norms must be exact', relative_error(norms, kernels.haar_norms(exact, LEVELS)), 1e-6)
    k = norms.shape[1] // 3
    slot = kernels.select(norms, k)
    rows = kernels.haar_pack(x, slot, k, LEVELS)
    expected = kernels.haar_pack(exact, slot, k, LEVELS)
    gate('haar_pack must be exact', relative_error(rows, expected), bound)
    step = torch.full((1,), 0.05, device=DEVICE)
    levels = kernels.haar_pack_int8(x, slot, k, LEVELS, step, -127, 127).double()
    gate(
        'haar_pack_int8 must be within half a step',
        ((levels - (expected / 0.05).clamp(-127, 127)).abs().max() - 0.5).item(),
        1e-3,
    )
    y = kernels.haar_unpack(rows, slot, None, *size, LEVELS, channels_last, x, -1.0, 1.0)
    expected = kernels.haar_unpack(
        rows.double(), slot, None, *size, LEVELS, channels_last, exact, -1.0, 1.0
    )
    gate('haar_unpack must be exact', relative_error(y, expected), bound)
    weight = torch.randn(x.shape[1], 1, 3, 3, device=DEVICE, dtype=x.dtype)
    for dilation in (1, 2):
        got = kernels.depthwise_haar(x, weight, None, LEVELS, dilation)
        expected = kernels.depthwise_haar(exact, weight, None, LEVELS, dilation)
        gate('depthwise_haar must be exact', relative_error(got[0], expected[0]), bound)
        gate('its norms must be exact', relative_error(got[1], expected[1]), max(1e-6, bound / 10))
    gathered = kernels.gather_rows(got[0], slot, k)
    gate(
        'gather_rows must copy',
        relative_error(gathered, got[0][slot >= 0].view_as(gathered)),
        1e-12,
    )
    gate(
        'the depthwise convolution must be exact',
        relative_error(
            plain_depthwise(x, weight), F.conv2d(exact, weight.double(), None, 1, 1, 1, x.shape[1])
        ),
        bound,
    )
    arguments = (
        torch.ones(1, device=DEVICE),
        torch.ones(1, dtype=torch.bool, device=DEVICE),
        8,
        False,
        True,
        1.0,
    )
    got, expected = kernels.fake_quant(x, *arguments), kernels.fake_quant(exact, *arguments)
    gate('fake_quant must be exact', relative_error(got, expected), max(bound, 1e-3))
    gate(
        'quantize_int8 must be within half a step',
        (
            (
                kernels.quantize_int8(x, step, -127, 127).double()
                - (exact / 0.05).clamp(-127, 127).permute(0, 2, 3, 1).flatten(1, 2)
            )
            .abs()
            .max()
            - 0.5
        ).item(),
        1e-3,
    )


def time_kernels(copy: float) -> list[dict]:
    """Time single kernels next to their floors: the bytes they must move, at copy speed."""
    results = []
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            for name, memory_format in FORMATS.items():
                x = torch.randn(shape, device=DEVICE, dtype=dtype).contiguous(
                    memory_format=memory_format
                )
                for kernel, (call, moved) in _kernel_calls(x, name == 'channels_last').items():
                    results.append(_kernel_result(kernel, call, moved, copy, shape, dtype, name))
                del x
    return results


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


def time_selection() -> list[dict]:
    """Time select next to torch.topk.

    topk breaks ties arbitrarily and does not number the kept positions.
    """
    results = []
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
        results.append(dict(images=batch, positions=positions, k=k, milliseconds=times))
    return results


def time_table(
    args: argparse.Namespace, rates: dict[str, float], end: float
) -> tuple[list[dict], list[str]]:
    """Time the blocks of Table 8 in every mode until the time is over.

    Returns the rows, and the names of the blocks that were left out for lack of time or of device
    memory.
    """
    chosen = [row for index, row in enumerate(ROWS) if args.rows is None or index in args.rows]
    results, left = [], []
    for mode in args.modes:
        for shape, rows in groupby(chosen, key=lambda row: row[:4]):
            if time.perf_counter() > end:
                left.append(f'{mode} {shape}')
                continue
            try:
                results += _time_shape(mode, shape, list(rows), args.compile, rates)
            except torch.OutOfMemoryError:
                left.append(f'{mode} {shape}, which needs more memory')
    return results, left


def _time_shape(
    mode: str, shape: tuple, rows: list, compiled: bool, rates: dict[str, float]
) -> list[dict]:
    """Time the dense block once, and the compressed one at every keep ratio in the table."""
    size, channels, expansion, batch = shape
    block, results = Block.make(channels, expansion, mode, DEVICE), []
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = mode != 'fp32'
    with torch.inference_mode():
        maps = {
            name: torch.randn(
                batch, channels, size, size, device=DEVICE, dtype=MODES[mode].dtype
            ).contiguous(memory_format=memory_format)
            for name, memory_format in FORMATS.items()
        }
        whole = wcc_block(block, maps['channels_last'][:1], 1.0, mode)
        bound = dict(fp32=1e-5, tf32=5e-3).get(mode, 5e-2 if 'int8' in mode else 2e-2)
        gate(
            f'keep_ratio=1 must equal the dense block in {mode}',
            relative_error(whole, dense_block(block, maps['channels_last'][:1])),
            bound,
        )
        calls = {f'dense {name}': lambda x=x: dense_block(block, x) for name, x in maps.items()}
        calls['dense, own depthwise'] = lambda: dense_block(
            block, maps['channels_last'], plain_depthwise
        )
        if compiled:
            torch._dynamo.reset()
            fast = torch.compile(dense_block)
            calls['dense compiled'] = lambda: fast(block, maps['channels_last'])
        for row in rows:
            calls[f'wcc {row.keep_ratio:g}'] = lambda ratio=row.keep_ratio: wcc_block(
                block, maps['channels_last'], ratio, mode
            )
        times = medians(calls, 0.2, 3)
    for row in rows:
        wcc, dense = times[f'wcc {row.keep_ratio:g}'], measuring.fastest(times, 'dense')
        eager = min(times[f'dense {name}'] for name in FORMATS)
        floor = floor_ratio(row, mode, rates)
        print(
            f'{mode:9s} {size:3d}^2 {channels:4d} x{expansion} B{batch:<3d} k '
            f'{row.keep_ratio:<6g}: {wcc:8.3f} ms, x{eager / wcc:.2f} of eager, x{dense / wcc:.2f} '
            f'of the best dense; floors x{floor:.2f}, paper x{row.paper:.2f}',
            flush=True,
        )
        results.append(
            dict(
                mode=mode,
                **row._asdict(),
                milliseconds={
                    **{name: value for name, value in times.items() if name.startswith('dense')},
                    'wcc': wcc,
                },
                over_eager=eager / wcc,
                over_best=dense / wcc,
                floor=floor,
            )
        )
    return results


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
        '--minutes', type=float, default=4.5, help='start no more blocks after that long'
    )
    parser.add_argument('--out', type=Path, help='JSON file to write')
    args = parser.parse_args()
    end = time.perf_counter() + 60 * args.minutes
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
    check()
    rates = ceilings()
    print(', '.join(f'{key} {value / 1e12:.2f} T/s' for key, value in rates.items()), flush=True)
    found = dict(kernels=time_kernels(rates['copy']), selection=time_selection())
    rows, left = time_table(args, rates, end)
    if left:
        print('not timed: ' + '; '.join(left))
    measuring.write(args.out, 'gpu', about, rows, rates=rates, left_out=left, **found)


if __name__ == '__main__':
    main()
