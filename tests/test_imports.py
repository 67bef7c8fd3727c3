"""Who may import whom, read from the sources, and what importing mmwcc needs and does."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each room may import the rooms of the rows above it, itself and the leaves.
FLOORS = [
    ['kernels'],
    ['functional'],
    ['quantizers'],
    ['layers'],
    ['model_tree'],
    ['maps'],
    ['inference'],
    ['cost'],
    ['compression'],
    ['post_training', 'diagnostics'],
    ['compressed_config'],
    ['checkpoint'],
    ['utils'],
    ['reports', 'deployment', 'models', 'datasets', 'evaluation', 'engine'],
    ['presets'],
    ['ladder', 'zoo'],
    ['testing'],
    ['tools'],
]
LEAVES = {
    '',
    'registry',
    'version',
    'compat',
    'messages',
    'progress',
    'requirements',
}  # '' is the package itself
TORCH_ONLY = {
    'kernels',
    'functional',
    'quantizers',
    'layers',
    'model_tree',
    'maps',
    'inference',
    'compression',
    'cost',
    'post_training',
    'diagnostics',
}
ACCELERATORS = {'kernels/cpu': {'numba', 'llvmlite'}, 'kernels/triton': {'triton'}}

FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def source_files() -> list[Path]:
    return [
        path
        for folder in ('mmwcc', 'kernels', 'tools')
        for path in sorted((ROOT / folder).rglob('*.py'))
        if '.mim' not in path.parts
    ]


def module_name(path: Path) -> str:
    """Return the name a source file is imported by; a tool gets the name ``mmwcc.tools.*``."""
    parts = path.relative_to(ROOT).with_suffix('').parts
    parts = parts if parts[0] == 'mmwcc' else ('mmwcc', *parts)
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def room(name: str) -> str:
    """Return the part of a module name that the rules speak of: ``mmwcc.layers.swap`` is in
    ``layers``.
    """
    return (name.split('.') + [''])[1]


def imports(text: str, name: str, is_package: bool = False, anywhere: bool = True) -> set[str]:
    """Return the names of the modules that a module imports, in functions too unless ``anywhere``
    is False.
    """
    found = set()
    for node in _statements(ast.parse(text), anywhere):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name if is_package else name.rpartition('.')[0]
            parents = (
                package.split('.')[: len(package.split('.')) - node.level + 1] if node.level else []
            )
            base = '.'.join([*parents, *([node.module] if node.module else [])])
            # `from mmwcc import kernels` imports a room, `from mmwcc import __version__` does not.
            found |= {f'{base}.{alias.name}' for alias in node.names} if base == 'mmwcc' else {base}
    return found


def _statements(tree: ast.AST, anywhere: bool):
    for node in ast.iter_child_nodes(tree):
        if not anywhere and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        yield node
        yield from _statements(node, anywhere)


def wrong_edges(importer: str, imported: set[str]) -> list[str]:
    """Return the imports that the rules do not allow."""
    wrong = []
    for name in sorted(imported):
        if name.split('.')[0] in ('kernels', 'tools', 'configs', 'tests'):
            wrong.append(f'{importer} imports {name}, which only exists in a checkout')
        if name.split('.')[0] != 'mmwcc':
            continue
        source, target = room(importer), room(name)
        if target in LEAVES or source == target or target.startswith('__'):
            continue
        if source in LEAVES:
            wrong.append(f'{importer} is a leaf and imports {name}')
        elif FLOOR[target] >= FLOOR[source]:
            wrong.append(f'{importer} imports {name}')
    return wrong


@pytest.mark.parametrize('path', source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_down(path):
    name = module_name(path)
    assert room(name) in FLOOR or room(name) in LEAVES, (
        f'{name} is in no room of the plan: add it to FLOORS'
    )
    assert not wrong_edges(name, imports(path.read_text(), name, path.name == '__init__.py'))


@pytest.mark.parametrize(
    ('importer', 'text'),
    [
        ('mmwcc.layers.x', 'from mmwcc.compression import compress_model'),
        ('mmwcc.functional.x', 'from mmwcc import layers'),
        ('mmwcc.functional.x', 'import mmwcc.layers.swap'),
        ('mmwcc.quantizers.x', 'from ..layers import QuantConv2d'),
        ('mmwcc.kernels.x', 'def f():\n    from mmwcc.functional import pack'),
        ('mmwcc.engine.hooks.x', 'from ...models import CompressedModel'),
        ('mmwcc.registry', 'import mmwcc.layers'),
        ('mmwcc.layers.x', 'from kernels import haar'),
    ],
)
def test_wrong_edges_are_seen(importer, text):
    assert len(wrong_edges(importer, imports(text, importer))) == 1


@pytest.mark.parametrize(
    ('importer', 'text'),
    [
        (
            'mmwcc.layers.x',
            'from .swap import f\nfrom ..functional import g\nfrom mmwcc import __version__, '
            'kernels',
        ),
        ('mmwcc.engine.hooks.x', 'from mmwcc.registry import HOOKS\nimport mmengine, torch'),
        ('mmwcc.presets', 'import mmwcc.compression'),
    ],
)
def test_right_edges_are_allowed(importer, text):
    assert not wrong_edges(importer, imports(text, importer))


@pytest.mark.parametrize(
    'path',
    [path for path in source_files() if room(module_name(path)) in TORCH_ONLY],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_lower_rooms_need_torch_alone(path):
    folder = str(path.parent.relative_to(ROOT))
    allowed = {'mmwcc', 'torch', 'numpy', *ACCELERATORS.get(folder, ()), *sys.stdlib_module_names}
    needed = {
        name.split('.')[0]
        for name in imports(
            path.read_text(), module_name(path), path.name == '__init__.py', anywhere=False
        )
    }
    assert needed <= allowed, 'import it where it is used, inside a function'


BARE_IMPORT = """
    import sys
    from importlib.abc import MetaPathFinder

    class Missing(MetaPathFinder):
        names = {'mmengine', 'mmcv', 'mmseg', 'mmdet', 'numba', 'triton', 'pywt'}

        def find_spec(self, fullname, path=None, target=None):
            if fullname.partition('.')[0] in self.names:
                raise ModuleNotFoundError(f'No module named {fullname!r} here', name=fullname)

    sys.meta_path.insert(0, Missing())
    import importlib.util
    found = importlib.util.find_spec
    importlib.util.find_spec = lambda name, package=None: (
        None if name.partition('.')[0] in Missing.names else found(name, package))

    import mmwcc
    assert 'torch' not in sys.modules
    import torch
    import mmwcc.kernels, mmwcc.functional, mmwcc.quantizers, mmwcc.layers, mmwcc.compression

    assert not Missing.names & {name.partition('.')[0] for name in sys.modules}
    assert not torch.cuda.is_initialized()
    assert 'builtins.getattr' not in [entry[1] for entry in torch.serialization.get_safe_globals()
                                      if isinstance(entry, tuple)]
    layer = mmwcc.layers.WaveletCompressedConv2d(3, 4, keep_ratio=0.5)
    print(tuple(layer(torch.zeros(1, 3, 8, 8)).shape))
    assert not Missing.names & {name.partition('.')[0] for name in sys.modules}
"""


def test_torch_alone_is_enough():
    """Importing the lower rooms, and using a layer, with none of the optional packages; no device
    is opened.
    """
    result = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(BARE_IMPORT)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == '(1, 4, 8, 8)\n'


@pytest.mark.parametrize(
    'path', sorted((ROOT / 'mmwcc' / 'testing').glob('*.py')), ids=lambda path: path.name
)
def test_references_are_independent(path):
    """What layers are compared with must not come from what is compared."""
    name = module_name(path)
    assert {
        room(found)
        for found in imports(path.read_text(), name, path.name == '__init__.py')
        if found.startswith('mmwcc')
    } <= {'testing'}
