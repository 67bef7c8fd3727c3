"""What is installed: the packages, their files and what openmim looks for, in wheels and in
editable installs.
"""

import base64
import hashlib
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import mmwcc

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    """Return a copy of the sources, so that the source tree stays as it is."""
    copy = tmp_path_factory.mktemp('projects') / 'mmwcc'
    copy.mkdir()
    for name in (
        'mmwcc',
        'kernels',
        'tools',
        'configs',
        'stand_ins',
        'setup.py',
        'pyproject.toml',
        'MANIFEST.in',
        'LICENSE',
        'model-index.yml',
    ):
        _copy(ROOT / name, copy / name)
    return copy


def build(clone: Path, target: Path, kind: str) -> Path:
    code = f'from setuptools import build_meta; build_meta.build_{kind}({str(target)!r})'
    subprocess.run([sys.executable, '-c', code], cwd=clone, check=True, capture_output=True)
    (archive,) = target.glob('*.whl')
    return archive


@pytest.fixture(scope='module')
def wheel(clone, tmp_path_factory):
    """Build the wheel and return its files by name."""
    with zipfile.ZipFile(build(clone, tmp_path_factory.mktemp('wheel'), 'wheel')) as content:
        return {name: content.read(name) for name in content.namelist()}


@pytest.fixture(scope='module')
def editable(clone, tmp_path_factory):
    """Install the clone editable, into a folder of its own, and return this folder."""
    site = tmp_path_factory.mktemp('site')
    with zipfile.ZipFile(build(clone, tmp_path_factory.mktemp('editable'), 'editable')) as content:
        content.extractall(site)
    return site


def imported_from(folder: Path, site: Path) -> list[str]:
    """Start Python in a folder, with one folder of installed packages; return what it imports."""
    code = f'import site; site.addsitedir({str(site)!r}); import mmwcc, mmwcc.version\n'
    code += 'print(mmwcc.__file__, mmwcc.version.__file__)'
    command = [sys.executable, '-S', '-c', code]
    result = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return result.stdout.split()


def test_an_editable_install_is_found_beside_its_clone(clone, editable, tmp_path):
    """Above the clone, Python finds a folder of the right name first, which is no package."""
    expected = [str(clone / 'mmwcc' / name) for name in ('__init__.py', 'version.py')]
    for folder in (clone.parent, clone, tmp_path):
        assert imported_from(folder, editable) == expected


def test_another_checkout_in_the_working_folder_comes_first(editable, tmp_path):
    _copy(ROOT / 'mmwcc', tmp_path / 'mmwcc')
    assert imported_from(tmp_path, editable)[0] == str(tmp_path / 'mmwcc' / '__init__.py')


def test_the_record_of_an_editable_install_is_right(editable):
    (record,) = editable.glob('mmwcc-*.dist-info/RECORD')
    for line in record.read_text().splitlines():
        name, expected, size = line.rsplit(',', 2)
        if expected:
            content = (editable / name).read_bytes()
            found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b'=')
            assert (expected, size) == (f'sha256={found.decode()}', str(len(content))), name


def _copy(source: Path, target: Path) -> None:
    if source.is_file():
        target.write_bytes(source.read_bytes())
        return
    target.mkdir()
    for path in source.iterdir():
        if path.name not in ('.mim', '__pycache__'):
            _copy(path, target / path.name)


def _sources(folder: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / folder).rglob('*.py')
        if '.mim' not in path.parts
    }


def test_wheel_has_every_module(wheel):
    expected = _sources('mmwcc') | {f'mmwcc/{name}' for name in _sources('kernels')}
    missing = expected - set(wheel)
    assert not missing, 'a folder without __init__.py is not packaged'
    assert 'mmwcc/kernels/__init__.py' in wheel
    assert 'mmwcc/compression/speed_cpu.json' in wheel, 'the table of only_if_faster'
    assert {f'mmwcc/kernels/triton/configs/{name}.json' for name in ('cuda', 'hip')} <= set(wheel)


def test_wheel_has_what_openmim_looks_for(wheel):
    allocations = {str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('_base_/*.yml')}
    assert len(allocations) == 4, 'data that configs inherit'
    assert {
        f'mmwcc/.mim/{name}' for name in _sources('tools') | _sources('configs') | allocations
    } <= set(wheel)
    assert {'mmwcc/.mim/tools/dist_train.sh', 'mmwcc/.mim/model-index.yml'} <= set(wheel)


def test_wheel_has_nothing_else(wheel):
    """No tests, no top-level ``kernels`` or ``tools``, which could hide other packages of that
    name.
    """
    assert {name.split('/')[0] for name in wheel} == {
        'mmwcc',
        f'mmwcc-{mmwcc.__version__}.dist-info',
    }
    assert not [name for name in wheel if '__pycache__' in name or name.endswith('.pyc')]


def test_wheel_has_no_stand_in_of_another_package(wheel):
    stand_in = (ROOT / 'stand_ins' / 'mmcv_ops.py').read_bytes()
    assert stand_in not in wheel.values()
    assert not [name for name in wheel if 'stand_in' in name or name.startswith('mmcv/')]


def test_wheel_metadata(wheel):
    folder = f'mmwcc-{mmwcc.__version__}.dist-info'
    text = wheel[f'{folder}/METADATA'].decode()
    assert f'\nVersion: {mmwcc.__version__}\n' in text
    always = [
        line
        for line in re.findall('^Requires-Dist: (.*)$', text, re.MULTILINE)
        if 'extra ==' not in line
    ]
    assert {re.match('[A-Za-z]+', line).group() for line in always} == {
        'torch',
        'numpy',
        'PyWavelets',
    }
    assert wheel[f'{folder}/top_level.txt'].decode() == 'mmwcc\n'
    license_text = next(
        content for name, content in wheel.items() if name.startswith(folder) and 'LICENSE' in name
    )
    assert b'Apache License' in license_text


def test_installed_version_is_the_one_of_the_source():
    assert metadata.version('mmwcc') == mmwcc.__version__


def test_installed_package_has_mim_folder():
    folder = Path(mmwcc.__file__).parent / '.mim'
    for name in ('tools/train.py', 'tools/test.py', 'model-index.yml'):
        assert (folder / name).is_file(), f'{name} is missing: run `pip install -e .` again'
    assert {path.name for path in (ROOT / 'configs' / '_base_').iterdir()} == {
        path.name for path in (folder / 'configs' / '_base_').iterdir()
    }


def test_top_level_leads_to_the_package():
    """openmim 0.3 and mmengine 0.10 join the folder of the dist-info and the first line of
    top_level.txt.
    """
    distribution = metadata.distribution('mmwcc')
    folder = (
        Path(distribution.locate_file('')) / distribution.read_text('top_level.txt').split('\n')[0]
    )
    assert (folder / '.mim' / 'tools' / 'train.py').is_file()


def test_model_index_lists_every_metafile():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert sorted(index['Import']) == sorted(
        str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('metafile.yml')
    )


def metafiles() -> list[Path]:
    return sorted((ROOT / 'configs').rglob('metafile.yml'))


@pytest.mark.parametrize('path', metafiles(), ids=lambda path: path.parent.name)
def test_every_model_has_weights_or_says_that_there_are_none(path):
    for model in yaml.safe_load(path.read_text())['Models']:
        assert model['Weights'].startswith(('https://', 'No weights of this config are published'))


def test_mim_download_says_that_there_are_no_weights(tmp_path):
    commands = pytest.importorskip('mim.commands.download', reason='it is in the extra `mim`')
    name = yaml.safe_load(metafiles()[0].read_text())['Models'][0]['Name']
    with pytest.raises(Exception) as error:  # what it is depends on the version of mim
        commands.download('mmwcc', [name], str(tmp_path))
    assert 'No weights of this config are published' in str(error.getrepr(chain=True))


def test_config_names_are_unique():
    """``mim train mmwcc NAME.py`` finds a config by name, and refuses a name that occurs twice."""
    names = [path.name for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    'script',
    ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh', 'misc/setup_env.sh'],
)
def test_scripts_are_executable_bash(script):
    path = ROOT / 'tools' / script
    assert path.stat().st_mode & 0o111
    subprocess.run(['bash', '-n', str(path)], check=True)
