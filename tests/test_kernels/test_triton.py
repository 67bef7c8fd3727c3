"""The Triton kernels in Triton's interpreter, and on a GPU where there is one.

The cases are in triton_cases/. They run in a process of their own, since the interpreter is chosen
as Triton is imported.
"""

import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip('triton', minversion='3.6', reason='needs the Triton of the extra triton')

CASES = sorted((Path(__file__).parent / 'triton_cases').glob('*_cases.py'))
BARE_CASES = Path(__file__).parent / 'triton_bare.py'
GRAPHS = Path(__file__).parent / 'triton_graphs.py'
ROOT = Path(__file__).parents[2]


def run_cases(**environment):
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ('TRITON_INTERPRET', 'MMWCC_TRITON_CONFIGS')
    }
    command = [sys.executable, '-m', 'pytest', '-q', '-n0', '-p', 'no:cacheprovider', *CASES]
    result = subprocess.run(
        command,
        env={**kept, 'MMWCC_KERNELS': 'triton', **environment},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    assert ' passed' in result.stdout and 'skipped' not in result.stdout


@pytest.mark.slow
def test_kernels_in_the_interpreter():
    run_cases(TRITON_INTERPRET='1')


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_kernels_on_the_gpu():
    run_cases()


@pytest.fixture
def launch(monkeypatch):
    monkeypatch.delenv('MMWCC_TRITON_CONFIGS', raising=False)
    module = importlib.import_module('mmwcc.kernels.triton.launch')
    module._configurations.cache_clear()
    yield module
    module._configurations.cache_clear()


def test_layout_is_what_vector_loads_need(launch):
    x = torch.empty(2, 24, 6, 10)
    assert launch.layout_of(x) == ((720, 30, 5, 1), 2, 2)
    assert launch.layout_of(x.to(memory_format=torch.channels_last)) == ((180, 1, 30, 3), 1, 8)
    assert launch.layout_of(x.transpose(2, 3)) == ((1440, 60, 1, 10), 0, 1)
    assert launch.layout_of(x[..., :1]) == (
        (720, 30, 5, 0),
        0,
        2,
    )  # an axis of one element is nowhere contiguous


class Allocations(TorchDispatchMode):
    """The results of all calls of the current thread, as the pool of a CUDA graph takes them."""

    def __init__(self):
        super().__init__()
        self.places = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.places.add(result.untyped_storage().data_ptr())
        return result


def test_matrices_outlive_the_pool_in_which_they_are_first_used():
    passes = importlib.import_module('mmwcc.kernels.triton.passes')
    passes._matrices.clear()
    cpu, places = torch.device('cpu'), set()
    with Allocations() as pool:
        for levels, transposed in itertools.product((1, 2, 3), (False, True)):
            matrix = passes.matrix(levels, transposed, torch.float16, cpu)
            assert matrix.untyped_storage().data_ptr() not in pool.places
            places.add(matrix.data_ptr())
            torch.testing.assert_close(matrix @ matrix.t(), torch.eye(64, dtype=torch.float16))
        torch.zeros(1)
    assert pool.places, 'the pool takes what this thread allocates'
    kept = {
        passes.matrix(*key, torch.float16, cpu).data_ptr()
        for key in itertools.product((1, 2, 3), (False, True))
    }
    assert len(places) == 6 and kept == places, 'captured graphs still read them'


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('way', ['reduce-overhead', 'capture'])
def test_a_layer_runs_in_cuda_graphs(way):
    """In a process of its own: what is kept from call to call is first filled there."""
    result = subprocess.run(
        [sys.executable, str(GRAPHS), way], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]


@pytest.mark.parametrize('name', ['cuda', 'hip'])
def test_shipped_configurations_name_every_kernel(launch, name):
    table = launch.read_configurations(launch.CONFIGS / f'{name}.json')
    assert set(table) == {
        'haar_norms',
        'haar_pack',
        'haar_unpack',
        'depthwise_haar',
        'gather_rows',
        'fake_quant',
        'fake_quant_backward',
        'energy_quant',
        'energy_quant_backward',
        'quantize_int8',
        'int8_linear',
        'select',
    }
    with launch.forced(table):
        for kernel in table:
            for dtype in (
                [torch.int8]
                if kernel == 'int8_linear'
                else [torch.float32, torch.bfloat16, torch.float16]
            ):
                if kernel != 'select' or dtype == torch.float32:
                    assert launch.configuration(kernel, torch.empty(1, dtype=dtype))[
                        'num_warps'
                    ] in (2, 4, 8, 16)


def test_environment_variable_overrides_configurations(launch, monkeypatch, tmp_path):
    x = torch.empty(1)
    shipped = launch.configuration('haar_pack', x)
    path = tmp_path / 'mine.json'
    path.write_text(json.dumps(dict(kernels=dict(haar_pack=dict(float32=dict(num_warps=2))))))
    monkeypatch.setenv('MMWCC_TRITON_CONFIGS', str(path))
    launch._configurations.cache_clear()
    assert launch.configuration('haar_pack', x) == {**shipped, 'num_warps': 2}
    assert shipped['num_warps'] != 2


@pytest.mark.parametrize('name', ['cuda', 'hip'])
def test_no_configuration_changes_the_order_of_a_sum(launch, monkeypatch, tmp_path, name):
    """So that the same map has the same norms, and keeps the same positions, everywhere."""
    monkeypatch.setattr(torch.version, 'hip', name == 'hip' or None)
    path = tmp_path / 'mine.json'
    monkeypatch.setenv('MMWCC_TRITON_CONFIGS', str(path))
    shipped = launch.read_configurations(launch.CONFIGS / f'{name}.json')
    for kernel, names in launch.ORDERED.items():
        for other in names:
            values = {**shipped[kernel]['half'], 'num_stages': 7}
            path.write_text(json.dumps(dict(kernels={kernel: dict(half=values)})))
            launch._configurations.cache_clear()
            x = torch.empty(1, dtype=torch.float16)
            assert launch.configuration(kernel, x)['num_stages'] == 7
            values[other] *= 2
            path.write_text(json.dumps(dict(kernels={kernel: dict(half=values)})))
            launch._configurations.cache_clear()
            with pytest.raises(ValueError, match=f'{other} of {kernel} must be .*Leave it out'):
                launch.configuration(kernel, x)


def test_tuning_leaves_the_order_of_sums_alone(launch, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools' / 'benchmarks'))
    space = importlib.import_module('tune_triton').SPACE
    assert not [
        kernel for kernel in space if set(space[kernel]) & set(launch.ORDERED.get(kernel, ()))
    ]


@pytest.mark.parametrize(
    ('content', 'error', 'message'),
    [
        (
            None,
            FileNotFoundError,
            'no launch configurations at .*mine.json. Correct or unset MMWCC_TRITON_CONFIGS',
        ),
        ('{', ValueError, 'mine.json must be JSON with the key "kernels", got JSONDecodeError'),
        ('{}', ValueError, 'must be JSON with the key "kernels", got KeyError'),
    ],
)
def test_wrong_configurations_are_errors(launch, tmp_path, content, error, message):
    path = tmp_path / 'mine.json'
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match=message):
        launch.read_configurations(path)


BENCHMARK = """
import sys
sys.path.insert(0, {folder!r})
import gpu, gpu_checks, gpu_timing, table8, tune_triton
gpu.ROWS = (table8.Row(8, 16, 2, 1, 0.5, 1.2), table8.Row(8, 16, 2, 1, 0.25, 1.2))
gpu.SHAPES, gpu.SELECTIONS, gpu_checks.MAPS = ((1, 16, 8, 8), ), ((2, 64), ), gpu_checks.MAPS[:2]
gpu_checks.SELECTIONS = ((3, 500), )
gpu.COPY_BYTES, gpu.PRODUCT = 4096, 32
gpu_timing.medians.__defaults__ = (1, )
sys.argv = ['gpu.py', '--no-compile', '--modes', 'tf32/bf16', 'bf16/int8', '--out', {gpu!r}]
try:
    gpu.main()
except SystemExit as status:
    assert not status.code
tune_triton.MAPS, tune_triton.SELECTIONS = ((1, 16, 8, 8), ), ((1, 64), )
tune_triton.PRODUCTS = ((40, 24, 16), )
tune_triton.SPACE = {{kernel: {{key: values[-1:] for key, values in space.items()}}
                     for kernel, space in tune_triton.SPACE.items()}}
sys.argv = ['tune_triton.py', '--kernels', 'haar_pack', 'int8_linear', 'select', '--out', {tuned!r}]
tune_triton.main()
"""


@pytest.mark.slow
def test_benchmark_and_tuning_run_in_the_interpreter(launch, tmp_path):
    folder = ROOT / 'tools' / 'benchmarks'
    code = BENCHMARK.format(
        folder=str(folder), gpu=str(tmp_path / 'gpu.json'), tuned=str(tmp_path / 'tuned.json')
    )
    result = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        env={**os.environ, 'TRITON_INTERPRET': '1', 'MMWCC_KERNELS': 'triton'},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    content = json.loads((tmp_path / 'gpu.json').read_text())
    assert [(row['mode'], row['keep_ratio']) for row in content['rows']] == [
        (mode, ratio) for mode in ('tf32/bf16', 'bf16/int8') for ratio in (0.5, 0.25)
    ]
    assert {row['kernel'] for row in content['kernels']} >= {
        'haar_norms',
        'depthwise_haar 3x3',
        'fake_quant_backward',
    }
    assert content['environment']['triton'] and content['environment']['device'] == 'interpreter'
    assert content['left_out'] == content['wrong'] == content['errors'] == []
    tuned = launch.read_configurations(tmp_path / 'tuned.json')
    assert set(tuned) == {'haar_pack', 'int8_linear', 'select'}
    assert tuned['select']['float32']['one_program'] in (0, 64)


def run_plan(folder, *arguments):
    program = ROOT / 'tools' / 'benchmarks' / 'gpu_plan.py'
    command = [sys.executable, str(program), '--out', str(folder), *arguments]
    status = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).returncode
    return status, json.loads((folder / 'summary.json').read_text())


@pytest.mark.skipif(torch.cuda.is_available(), reason='every step works there')
def test_the_plan_for_a_device_writes_what_it_saw_of_every_step_that_fails(tmp_path):
    """Here every step fails, since there is no GPU."""
    steps = ('--steps', 'graphs', 'benchmark', 'sanitizer')
    status, summary = run_plan(tmp_path, *steps, '--minutes', '0.1')
    assert status == 1
    if shutil.which('compute-sanitizer', path=f'{os.environ["PATH"]}:/usr/local/cuda/bin') is None:
        sanitizer = summary.pop('sanitizer')
        assert sanitizer['last'][0].startswith('left out: compute-sanitizer is neither on the PATH')
    assert set(summary) == {'graph-capture', 'graph-reduce-overhead', 'benchmark'}
    assert all(found['status'] for found in summary.values())
    for name, found in summary.items():
        assert found['last'][0] in (tmp_path / f'{name}.log').read_text()
    assert 'MMWCC_KERNELS=triton serves tensors on the CPU' in summary['benchmark']['last'][0]


BARE = """
import sys
sys.modules.update(dict.fromkeys(['mmengine', 'mmcv', 'mmseg', 'numba', 'pywt', 'pytest']))
"""
BENCHMARKS = """
sys.path.insert(0, 'tools/benchmarks')
import gpu, gpu_plan, measuring, shutil, tune_triton
shutil.which = lambda name: None
about = measuring.environment()
assert about['commit'] is None and about['cpu'] and about['torch']
"""


def run_bare(program, **environment):
    command = [sys.executable, '-c', BARE + program]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


def test_benchmarks_need_torch_triton_and_numpy_alone():
    """Neither OpenMMLab nor git."""
    result = run_bare(BENCHMARKS)
    assert result.returncode == 0, result.stderr


def test_the_cases_of_the_plan_need_no_pytest():
    program = f"import runpy; sys.argv = ['', 'launch_cases']; runpy.run_path({str(BARE_CASES)!r}, "
    result = run_bare(
        program + "run_name='__main__')", MMWCC_KERNELS='triton', TRITON_INTERPRET='1'
    )
    assert result.stdout.endswith('0 failed, 2 passed, without pytest\n'), result.stderr


SMALL_CASES = """
import pytest

@pytest.fixture
def seven():
    yield 7

@pytest.mark.parametrize(('x', 'y'), [(1, 2), (3, 4)])
@pytest.mark.parametrize('z', 'ab')
def test_axes_are_multiplied(x, y, z, automatic, seven, tmp_path):
    assert (y - x, seven, tmp_path.is_dir()) == (1, 7, True) and z in 'ab'

@pytest.mark.parametrize('x', [1, 2])
def test_one_of_these_fails(x):
    assert x == 1
"""
AUTOMATIC = """
import pytest

@pytest.fixture(autouse=True, scope='session')
def automatic():
    print('once')
    yield
    print('undone')
"""


def test_without_pytest_failed_cases_are_named_and_the_others_run(tmp_path):
    folder = tmp_path / 'test_kernels' / 'triton_cases'
    folder.mkdir(parents=True)
    for path in (folder, folder.parent, tmp_path):
        (path / 'conftest.py').write_text(AUTOMATIC if path == folder else '')
    (folder / 'small_cases.py').write_text(SMALL_CASES)
    program = shutil.copy(BARE_CASES, folder.parent)
    command = [sys.executable, program, str(folder / 'small_cases.py')]
    result = subprocess.run(command, capture_output=True, text=True)
    lines = result.stdout.splitlines()
    assert result.returncode == 1 and lines[-1] == '1 failed, 5 passed, without pytest'
    assert lines.count('once') == lines.count('undone') == 1
    assert "FAILED small_cases::test_one_of_these_fails {'x': 2}" in lines


def test_a_wrong_kernel_and_an_error_do_not_end_the_benchmark(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / 'tools' / 'benchmarks'))
    gpu, checks = importlib.import_module('gpu'), importlib.import_module('gpu_checks')
    report = gpu.Report(tmp_path / 'gpu.json', dict(device='none'), 1.0)

    def wrong(report):
        gpu.expect('one is two', 1.0, 0.5)
        gpu.expect('it is a number', float('nan'), 0.5)

    def broken(report):
        report.found['rows'].append(dict(mode='bf16'))
        raise RuntimeError('no such device')

    for section in (wrong, broken):
        report.run(section)
        written = json.loads((tmp_path / 'gpu.json').read_text())
    checks.FAILED.clear()
    assert [line.split(':')[0] for line in written['wrong']] == ['one is two', 'it is a number']
    assert 'no such device' in written['errors'][0] and written['rows'] == [{'mode': 'bf16'}]
    report.end = 0
    assert not report.has_time('a block') and report.found['left_out'] == ['a block']
