"""stand_ins/mmcv_ops.py, which the environment of the demo has in the place of mmcv.ops."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

STAND_IN = Path(__file__).resolve().parent.parent / 'stand_ins' / 'mmcv_ops.py'


@pytest.fixture
def stand_in():
    spec = importlib.util.spec_from_file_location('stand_in', STAND_IN)
    module = importlib.util.module_from_spec(spec)
    with pytest.warns(RuntimeWarning, match='mmcv.ops is a stand-in without operators.*make setup'):
        spec.loader.exec_module(module)
    return module


def imported_when_loaded(package: str) -> set[str]:
    """Return the names that the modules of a package take from mmcv.ops as they are imported."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f'{package} is not installed')
    names = set()
    for path in Path(spec.origin).parent.rglob('*.py'):
        if '.mim' in path.parts or 'mmcv.ops' not in path.read_text(encoding='utf-8'):
            continue
        pending = list(ast.parse(path.read_text(encoding='utf-8')).body)
        while pending:
            node = pending.pop()
            if isinstance(node, ast.ImportFrom) and node.module == 'mmcv.ops':
                names |= {alias.name for alias in node.names}
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                pending += ast.iter_child_nodes(node)
    return names


def test_it_has_the_operators_that_mmseg_imports(stand_in):
    operators = imported_when_loaded('mmseg')
    assert {'point_sample', 'sigmoid_focal_loss'} <= operators
    reports = {'get_compiler_version', 'get_compiling_cuda_version'}  # of mmcv.utils.collect_env
    assert operators | reports == set(stand_in.__all__)


@pytest.mark.parametrize(
    'name', ['CrissCrossAttention', 'PSAMask', 'point_sample', 'sigmoid_focal_loss']
)
def test_operators_say_what_is_missing(stand_in, name):
    with pytest.raises(RuntimeError, match=f'mmcv.ops.{name}: .* has no operators.*make setup'):
        getattr(stand_in, name)(1, keyword=2)


def test_versions_are_none(stand_in):
    assert stand_in.get_compiler_version().startswith('n/a')
    assert stand_in.get_compiling_cuda_version().startswith('n/a')


@pytest.fixture
def environment(tmp_path):
    """Return a folder of packages with mmcv-lite, as far as it matters, and the stand-in."""
    (tmp_path / 'mmcv' / 'ops').mkdir(parents=True)
    (tmp_path / 'mmcv' / '__init__.py').touch()
    (tmp_path / 'mmcv' / 'ops' / '__init__.py').write_text(STAND_IN.read_text())
    return tmp_path


@pytest.mark.parametrize(
    ('statement', 'found'),
    [
        ('import mmcv.ops', True),  # cannot be refused, because mmseg must import it
        ('from mmcv.ops import nms', False),
        ('from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttention', False),
        ('import mmcv._ext', False),
    ],
)
def test_a_program_that_asks_for_operators_is_told(environment, statement, found):
    (environment / 'program.py').write_text(
        f'try:\n    {statement}\nexcept ImportError:\n    print(False)\nelse:\n    print(True)\n'
    )
    result = subprocess.run(
        [sys.executable, '-S', 'program.py'], cwd=environment, capture_output=True, text=True
    )
    assert result.stdout.strip() == str(found), result.stderr
    if 'mmcv.ops' in statement:
        assert 'program.py:2: RuntimeWarning: mmcv.ops is a stand-in' in result.stderr
