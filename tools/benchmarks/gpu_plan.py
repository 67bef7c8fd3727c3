"""The first minutes on a GPU: everything worth knowing, in one program that ends within ten.

It needs torch, triton and numpy only. Whatever fails or takes too long, the next step runs, and a
folder has all that was seen. The steps:

1. `install`: the package, without its dependencies, where it lies
2. `cases`: every kernel case of the tests, all files at a time, with pytest or without it
3. `graphs`: a layer in CUDA graphs, each way in a fresh process
4. `benchmark`: gpu.py, which checks every kernel, too; 5.5 minutes without `--minutes`
5. `warps`: the depthwise kernel with 8 and with 4 warps
6. `sanitizer`: compute-sanitizer over one small case, if it is installed

    python tools/benchmarks/gpu_plan.py --out FOLDER [--steps cases graphs] [--minutes 5.5]

The folder gets a log of each step, `gpu.json` of the benchmark and `summary.json`, which also names
what was left out. The exit status is 1 if a step failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / 'tests' / 'test_kernels' / 'triton_cases'
BARE, GRAPHS = (CASES.with_name(f'triton_{name}.py') for name in ('bare', 'graphs'))
CUDA = '/usr/local/cuda/bin'
SECONDS = 585  # for everything; the rest is for the last lines of the summary

WARPS = """
import json, sys
sys.path.insert(0, {folder!r})
import torch
from gpu_timing import DEVICE, medians
from mmwcc import kernels
from mmwcc.kernels.triton import launch

table = launch.read_configurations(launch.CONFIGS / 'cuda.json')
for dtype, kind in ((torch.bfloat16, 'half'), (torch.float32, 'float32')):
    x = torch.randn(48, 512, 96, 96, device=DEVICE, dtype=dtype)
    x = x.to(memory_format=torch.channels_last)
    weight = torch.randn(512, 1, 3, 3, device=DEVICE, dtype=dtype)
    for warps in (8, 4):
        table['depthwise_haar'][kind]['num_warps'] = warps
        with launch.forced(table):
            call = lambda: kernels.depthwise_haar(x, weight, None, 3)
            print(kind, warps, 'warps', medians(dict(call=call), 0.2)['call'], 'ms', flush=True)
"""

SMALL = """
import torch
from mmwcc.layers import WaveletCompressedConv2d
layer = WaveletCompressedConv2d(24, 40, keep_ratio=0.25).cuda()
x = torch.randn(2, 24, 17, 9, device='cuda', requires_grad=True)
layer(x).square().sum().backward()
torch.cuda.synchronize()
print('a step of a layer ran')
"""

MISSING = f"print('left out: compute-sanitizer is neither on the PATH nor in {CUDA}')"


class Command(NamedTuple):
    """One process of a step.

    Attributes:
        name: Names its log.
        words: The command.
        seconds: How long it may take.
    """

    name: str
    words: list[str]
    seconds: float


def steps(out: Path, minutes: float) -> Iterator[tuple[str, list[Command]]]:
    """Yield the name of each step and its processes, which run at the same time.

    What cannot run here is a process that says so.
    """
    python = [sys.executable]
    install = ['-m', 'pip', 'install', '-q', '--no-deps', '--no-build-isolation', '-e', str(ROOT)]
    yield 'install', [Command('install', [*python, *install], 60)]
    pytest = ['-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-o', 'required_plugins=']
    pytest += ['-o', 'addopts=']  # without the plugins that the whole suite needs
    cases = [*python, *(pytest if importlib.util.find_spec('pytest') else [str(BARE)])]
    files = sorted(CASES.glob('*_cases.py'))
    yield 'cases', [Command(file.stem, [*cases, str(file)], 180) for file in files]
    ways = ('capture', 'reduce-overhead')
    yield 'graphs', [Command(f'graph-{way}', [*python, str(GRAPHS), way], 90) for way in ways]
    benchmark = [*python, str(Path(__file__).with_name('gpu.py')), '--minutes', str(minutes)]
    benchmark += ['--out', str(out / 'gpu.json')]
    yield 'benchmark', [Command('benchmark', benchmark, 60 * minutes + 45)]
    warps = WARPS.format(folder=str(Path(__file__).parent))
    yield 'warps', [Command('warps', [*python, '-c', warps], 40)]
    sanitizer = shutil.which('compute-sanitizer') or shutil.which('compute-sanitizer', path=CUDA)
    small = [*python, '-c', SMALL if sanitizer else MISSING]
    if sanitizer:
        small = [sanitizer, '--error-exitcode', '9', *small]
    yield 'sanitizer', [Command('sanitizer', small, 60)]


def run(command: Command, log: Path, end: float) -> subprocess.Popen:
    """Start a process that is stopped when its time, or that of the program, is over."""
    seconds = max(1.0, min(command.seconds, end - time.monotonic()))
    environment = dict(os.environ, MMWCC_KERNELS='triton', PYTHONUNBUFFERED='1')
    with log.open('w') as file:
        watched = [sys.executable, __file__, '--watch', str(seconds), *command.words]
        return subprocess.Popen(
            watched, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=ROOT
        )


def watch(seconds: float, words: list[str]) -> int:
    """Run a command; return its exit status, or 124 if it took too long."""
    try:
        return subprocess.run(words, timeout=seconds, check=False).returncode
    except subprocess.TimeoutExpired:
        print(f'stopped after {seconds:.0f} s', flush=True)
        return 124


def run_step(step: str, commands: list[Command], out: Path, start: float) -> dict[str, dict]:
    """Run the processes of a step at the same time; return what is known of each."""
    found, running = {}, []
    for command in commands:
        log = out / f'{command.name}.log'
        running.append((command.name, log, run(command, log, start + SECONDS)))
    for name, log, process in running:
        status = process.wait()
        last = log.read_text(errors='replace').strip().splitlines()[-1:]
        seconds = round(time.monotonic() - start)
        found[name] = dict(step=step, status=status, seconds=seconds, last=last)
        print(f'{step} {name}: exit status {status}, {"".join(last)}', flush=True)
    return found


def main() -> None:
    if sys.argv[1:2] == ['--watch']:
        sys.exit(watch(float(sys.argv[2]), sys.argv[3:]))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ('install', 'cases', 'graphs', 'benchmark', 'warps', 'sanitizer')
    parser.add_argument('--out', type=Path, required=True, help='folder for everything seen')
    parser.add_argument('--steps', nargs='+', choices=names, default=names, help='all by default')
    parser.add_argument('--minutes', type=float, default=5.5, help='for the benchmark')
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    start, found = time.monotonic(), {}
    for step, commands in steps(args.out, args.minutes):
        if step not in args.steps:
            continue
        found |= run_step(step, commands, args.out, start)
        (args.out / 'summary.json').write_text(json.dumps(found, indent=1) + '\n')
    sys.exit(any(result['status'] for result in found.values()))


if __name__ == '__main__':
    main()
