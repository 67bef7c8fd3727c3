"""Compile the Triton kernels ahead of time, for GPUs that need not be there.

Each case calls an operator's Triton function on tensors of the CPU and records the launches instead
of making them, so that what is compiled is what users launch. Prints one line of JSON for each
kernel and target, with what it takes. The exit status is 1 if one spills registers or takes more
shared memory than its device has.

    python tests/test_kernels/triton_aot.py [--all] [--targets sm_80 sm_90] [--configs FILE]
                                            [--kernel NAME] [--table]
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

os.environ.pop('TRITON_INTERPRET', None)  # its @triton.jit makes functions that cannot be compiled

import torch  # noqa: E402
import triton  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

TARGETS = {
    'sm_80': GPUTarget('cuda', 80, 32),
    'sm_86': GPUTarget('cuda', 86, 32),
    'sm_90': GPUTarget('cuda', 90, 32),
    'sm_100': GPUTarget('cuda', 100, 32),
    'gfx942': GPUTarget('hip', 'gfx942', 64),
}
SHARED = dict(sm_80=166912, sm_86=101376, sm_90=232448, sm_100=232448, gfx942=65536)
"""Bytes of shared memory that one program may take."""
SPILLED = 8
"""Bytes of registers that one thread may spill: for sm_100, ptxas leaves a word in memory."""
TYPES = {
    torch.float32: 'fp32',
    torch.bfloat16: 'bf16',
    torch.float16: 'fp16',
    torch.float64: 'fp64',
    torch.int8: 'i8',
    torch.uint8: 'u8',
    torch.int32: 'i32',
    torch.int64: 'i64',
}
KERNELS = {
    name: importlib.import_module(f'mmwcc.kernels.triton.{name}')
    for name in ('haar', 'select', 'depthwise', 'gather', 'fake_quant', 'int8', 'energy')
}
LAUNCH = importlib.import_module('mmwcc.kernels.triton.launch')


def a_map(channels: int, dtype: torch.dtype, channels_last: bool, size: int = 64) -> torch.Tensor:
    """Return a map with the sizes and strides that the kernels are specialized on.

    Its values do not matter.
    """
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(2, channels, size, size, dtype=dtype).to(memory_format=memory_format)


def haar(
    channels: int, dtype: torch.dtype, channels_last: bool, levels: int = 3, size: int = 64
) -> None:
    x, module = a_map(channels, dtype, channels_last, size), KERNELS['haar']
    slot, bias = torch.empty(2, size * size, dtype=torch.int32), torch.empty(channels)
    module.haar_norms(x, levels)
    rows = module.haar_pack(x, slot, 1000, levels)
    module.haar_pack_int8(x, slot, 1000, levels, torch.ones(1), -127, 127)
    module.haar_unpack(rows, slot, None, size, size, levels, channels_last, None, None, None)
    module.haar_unpack(rows, slot, bias, size, size, levels, channels_last, x, 0.0, 6.0)


def depthwise(
    channels: int, dtype: torch.dtype, channels_last: bool, size: int = 3, levels: int = 3
) -> None:
    x, module = a_map(channels, dtype, channels_last), KERNELS['depthwise']
    weight, slot = torch.empty(channels, 1, size, size), torch.empty(2, 4096, dtype=torch.int32)
    coefficients, _ = module.depthwise_haar(x, weight, None, 1, levels, None, None)
    module.depthwise_haar(x, weight, torch.empty(channels), 2, levels, 0.0, 6.0)
    KERNELS['gather'].gather_rows(coefficients, slot, 1000)
    KERNELS['gather'].gather_rows_int8(coefficients, slot, 1000, torch.ones(1), -127, 127)


def fake_quant(channels: int, dtype: torch.dtype, channels_last: bool) -> None:
    x, module = a_map(channels, dtype, channels_last), KERNELS['fake_quant']
    for bits, symmetric, clip_gradient in ((8, False, True), (4, True, False)):
        arguments = (
            x,
            torch.ones(1),
            torch.ones(1, dtype=torch.bool),
            bits,
            symmetric,
            clip_gradient,
            0.5,
        )
        module.fake_quant(*arguments)
        module.fake_quant_backward(x, *arguments)


def energy(channels: int, dtype: torch.dtype) -> None:
    rows, module = torch.zeros(2, 1000, channels, dtype=dtype), KERNELS['energy']
    arguments = (torch.ones(7), torch.tensor(True), 4000, (0, 3, 4, 5, 6, 8), False)
    module.energy_quant(rows, *arguments)
    module.energy_quant_backward(rows, rows, *arguments)


def int8(channels: int, dtype: torch.dtype, channels_last: bool) -> None:
    x, module = a_map(channels, dtype, channels_last), KERNELS['int8']
    rows = module.quantize_int8(x, torch.ones(1), -128, 127)
    weight = torch.empty(256, channels, dtype=torch.int8)
    module.int8_linear(rows, weight, torch.empty(256, dtype=dtype), torch.empty(256, dtype=dtype))


def select(images: int, positions: int) -> None:
    KERNELS['select'].select(torch.empty(images, positions), 1000)


def cases(everything: bool) -> list[tuple]:
    """Return the calls whose launches are compiled: all, or a part that takes about a minute."""
    half, layouts = torch.bfloat16, (True, False)
    selections = [(select, 2, 9216), (select, 2, 32768), (select, 96, 65536), (select, 2, 65536)]
    if not everything:
        return [
            (haar, 144, torch.float32, True),
            (haar, 256, half, False),
            (depthwise, 144, half, True),
            (depthwise, 64, torch.float32, False),
            (fake_quant, 64, torch.float32, True),
            (energy, 144, torch.float32),
            (energy, 256, half),
            (int8, 144, half, False),
            *selections,
        ]
    dtypes = (torch.float32, half, torch.float16)
    found = [
        (haar, *rest) for rest in itertools.product((24, 144, 960), dtypes, layouts, (1, 2, 3, 4))
    ]
    found += [
        (haar, 64, dtype, layout, 3, 63) for dtype, layout in itertools.product(dtypes, layouts)
    ]
    found += [
        (depthwise, *rest)
        for rest in itertools.product((24, 144, 960), dtypes, layouts, (3, 5), (3,))
    ]
    found += [(depthwise, 144, dtype, True, 7, 4) for dtype in dtypes]
    found += [
        (function, *rest)
        for function in (fake_quant, int8)
        for rest in itertools.product((24, 144, 960), dtypes, layouts)
    ]
    found += [(energy, *rest) for rest in itertools.product((24, 144, 960), dtypes)]
    return [*found, *selections]


def record(call: tuple, target: GPUTarget, configs: Path | None) -> list[tuple]:
    """Return the launches of a case on a target.

    Each is the kernel, its signature, constants, attributes and options.
    """
    launches = []
    file = configs or LAUNCH.CONFIGS / f'{target.backend}.json'
    for module in (KERNELS['haar'], KERNELS['depthwise']):
        module.precision = partial(_precision, 'tf32' if target.backend == 'cuda' else 'ieee')
    run = JITFunction.run
    JITFunction.run = lambda kernel, *args, grid, warmup, **options: launches.append(
        _bind(kernel, args, options)
    )
    try:
        with LAUNCH.forced(LAUNCH.read_configurations(file)):
            call[0](*call[1:])
    finally:
        JITFunction.run = run
    return launches


def _precision(of_float32: str, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    return of_float32 if dtype == torch.float32 else 'bfloat16'


def _bind(kernel: JITFunction, args: tuple, options: dict) -> tuple:
    values = dict(zip(kernel.arg_names, args, strict=False))
    values |= {name: options.pop(name) for name in list(options) if name in kernel.arg_names}
    signature, constants, attributes = {}, {}, {}
    for parameter in kernel.params:
        value = values[parameter.name]
        kind = _type(value, parameter)
        signature[parameter.name] = kind
        if kind == 'constexpr':
            constants[parameter.name] = value
        elif kind[0] == '*' or (
            kind[0] == 'i' and not parameter.do_not_specialize and value % 16 == 0
        ):
            attributes[(parameter.num,)] = [['tt.divisibility', 16]]
    return kernel, signature, constants, attributes, options


def _type(value, parameter) -> str:
    if parameter.is_constexpr or value is None:
        return 'constexpr'
    if isinstance(value, torch.Tensor):
        return '*' + TYPES[value.dtype]
    if isinstance(value, float):
        return 'fp32'
    if value == 1 and not parameter.do_not_specialize:
        return 'constexpr'
    return 'i32' if -(2**31) <= value < 2**31 else 'i64'


def compile_launch(launch: tuple, name: str) -> dict:
    """Compile a launch for a target and report what it takes.

    That is registers, spills in bytes (registers on AMD) and shared memory in bytes, the number of
    layouts of accumulators on tensor cores before Blackwell, and how many products continue the
    accumulator of another one.
    """
    kernel, signature, constants, attributes, options = launch
    target = TARGETS[name]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    compiled = triton.compile(source, target=target, options=options)
    found = (
        _ptxas(compiled.asm['ptx'], target.arch)
        if target.backend == 'cuda'
        else _amd(compiled.asm['amdgcn'])
    )
    shown = {key: value for key, value in constants.items() if value is not None}
    types = {key: value for key, value in signature.items() if value[0] == '*'}
    return dict(
        kernel=kernel.__name__.strip('_'),
        target=name,
        **found,
        shared=compiled.metadata.shared,
        limit=SHARED[name],
        layouts=len(set(re.findall(r'#ttg\.nvidia_mma<\{.*', compiled.asm['ttgir']))),
        chained=_chained(compiled.asm['ttir']),
        options=options,
        constants=shown,
        pointers=types,
    )


def _chained(text: str) -> int:
    """Count the products that add to the result of another one, in Triton's dialect."""
    results = dict(re.findall(r'(%\w+) = tt\.dot %[\w#]+, %[\w#]+, (%\w+)', text))
    return sum(start in results for start in results.values())


def _ptxas(ptx: str, arch: int) -> dict:
    from triton.backends.nvidia.compiler import get_ptxas

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'kernel.ptx')
        path.write_text(ptx)
        gpu = f'sm_{arch}a' if arch >= 90 else f'sm_{arch}'
        log = subprocess.run(
            [get_ptxas(arch).path, '-v', f'--gpu-name={gpu}', str(path), '-o', f'{folder}/cubin'],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
    return dict(
        registers=_number(r'Used (\d+) registers', log),
        spilled=_number(r'(\d+) bytes spill stores', log),
    )


def _amd(text: str) -> dict:
    return dict(
        registers=_number(r'\.vgpr_count:\s+(\d+)', text),
        spilled=_number(r'\.vgpr_spill_count:\s+(\d+)', text),
    )


def _number(pattern: str, text: str) -> int:
    return int(re.search(pattern, text)[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    everything = 'every dtype, layout and level: some ten minutes'
    parser.add_argument('--all', action='store_true', help=everything)
    parser.add_argument('--targets', nargs='+', choices=TARGETS, default=list(TARGETS))
    configurations = 'file of launch configurations; default: the one shipped'
    parser.add_argument('--configs', type=Path, help=configurations)
    parser.add_argument('--kernel', default='', help='compile only kernels with this in the name')
    parser.add_argument('--table', action='store_true', help='print short lines, not JSON')
    args = parser.parse_args()
    good, done = True, set()
    for name, call in itertools.product(args.targets, cases(args.all)):
        for launch in record(call, TARGETS[name], args.configs):
            if (name, repr(launch)) in done or args.kernel not in launch[0].__name__:
                continue
            done.add((name, repr(launch)))
            report = compile_launch(launch, name)
            bad = report['spilled'] > SPILLED or report['shared'] > report['limit']
            good &= not bad
            line = _line(report, bad) if args.table else json.dumps(dict(report, bad=bad))
            print(line, flush=True)
    sys.exit(not good)


def _line(report: dict, bad: bool) -> str:
    constants = ' '.join(f'{key}={value}' for key, value in report['constants'].items())
    kinds = ','.join(sorted({kind[1:] for kind in report['pointers'].values()}))
    warps, stages = (report['options'].get(name) for name in ('num_warps', 'num_stages'))
    return (
        f'{report["target"]:6s} {report["kernel"]:18s} registers {report["registers"]:3d} spilled '
        f'{report["spilled"]:4d} shared {report["shared"]:6d} {"BAD" if bad else "   "} '
        f'w{warps} s{stages} {kinds} {constants}'
    )


if __name__ == '__main__':
    main()
