"""Every shipped launch configuration compiles for every target and fits it.

No registers spill, and shared memory is within the device.

A part of what `python tests/test_kernels/triton_aot.py --all` compiles, see there.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('triton', minversion='3.6', reason='needs the Triton of the extra triton')

PROGRAM = Path(__file__).parent / 'triton_aot.py'
LAUNCHED = {
    'norms_kernel',
    'pack_kernel',
    'unpack_kernel',
    'depthwise_kernel',
    'gather_kernel',
    'round_kernel',
    'gradient_kernel',
    'total_kernel',
    'measure_kernel',
    'round_rows_kernel',
    'differentiate_kernel',
    'quantize_kernel',
    'linear_kernel',
    'whole_kernel',
    'select_kernel',
    'count_kernel',
    'rank_kernel',
}
TARGETS = ('sm_80', 'sm_86', 'sm_90', 'sm_100', 'gfx942')


def compile_ahead(folder, *args):
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ('TRITON_INTERPRET', 'MMWCC_TRITON_CONFIGS')
    }
    result = subprocess.run(
        [sys.executable, str(PROGRAM), *args],
        capture_output=True,
        text=True,
        env={**environment, 'TRITON_CACHE_DIR': str(folder)},
    )
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert reports, result.stderr[-3000:]
    return result.returncode, reports


@pytest.mark.slow
@pytest.mark.parametrize('target', TARGETS)
def test_shipped_configurations_compile(target, tmp_path):
    status, reports = compile_ahead(tmp_path, '--targets', target)
    assert not [report for report in reports if report['bad']]
    assert status == 0
    assert {report['kernel'] for report in reports} == LAUNCHED
    assert all(report['registers'] > 0 for report in reports)
    assert any(report['shared'] > 0 for report in reports)
    # Both terms of a float32 value have an accumulator of their own, in the same layout.
    assert not [report for report in reports if report['chained'] or report['layouts'] > 1]


@pytest.mark.slow
def test_what_does_not_fit_is_seen(tmp_path):
    """A product of blocks that need more shared memory than sm_86 has, and more registers."""
    shipped = json.loads(
        (PROGRAM.parents[2] / 'kernels' / 'triton' / 'configs' / 'cuda.json').read_text()
    )
    shipped['kernels']['int8_linear']['int8'].update(
        block_m=256, block_n=256, num_warps=4, num_stages=6
    )
    (tmp_path / 'large.json').write_text(json.dumps(shipped))
    status, reports = compile_ahead(
        tmp_path,
        '--targets',
        'sm_86',
        '--kernel',
        'linear',
        '--configs',
        str(tmp_path / 'large.json'),
    )
    assert status == 1
    assert any(report['shared'] > report['limit'] for report in reports)
    assert any(report['spilled'] for report in reports)
