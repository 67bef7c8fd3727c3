"""Build mmwcc: the packages ``mmwcc`` (from ``mmwcc/``) and ``mmwcc.kernels`` (from ``kernels/``).

`openmim` and ``mmwcc::`` configs look for files in ``mmwcc/.mim/{tools,configs,model-index.yml}``.
Wheels contain copies of these, and editable installs link them into the source tree.
"""

import base64
import hashlib
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
MIM_CONTENT = ('tools', 'configs', 'model-index.yml')


def read_version() -> str:
    """Return the version in mmwcc/version.py without importing mmwcc."""
    text = (ROOT / 'mmwcc' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE).group(1)


def fill_mim(folder: Path, link: bool) -> None:
    """Fill ``folder`` with the tools, configs and model index, as links or as copies."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in MIM_CONTENT:
        source, target = ROOT / name, folder / name
        if link:
            try:
                target.symlink_to(
                    os.path.relpath(source, folder), target_is_directory=source.is_dir()
                )
                continue
            except OSError:  # Windows without the privilege to create links
                pass
        if source.is_dir():
            shutil.copytree(
                source, target, ignore=shutil.ignore_patterns('__pycache__', '*.pyc', '.*')
            )
        else:
            shutil.copy2(source, target)


class BuildWithMim(build_py):
    """Build the packages, and ``mmwcc/.mim`` next to them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            fill_mim(self._mim, link=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        mim_files = (
            []
            if self.editable_mode
            else [str(path) for path in self._mim.rglob('*') if path.is_file()]
        )
        return super().get_outputs(include_bytecode) + mim_files

    @property
    def _mim(self) -> Path:
        return Path(self.build_lib) / 'mmwcc' / '.mim'


class EditableWithMim(editable_wheel):
    """Link ``mmwcc/.mim`` in the source tree, and make mmwcc visible where it would not be.

    openmim 0.3 and mmengine 0.10 locate a package by the first line of its distribution's
    top_level.txt, taken relative to site-packages. In an editable install this folder does not
    exist, so the line holds the absolute path of the real one.

    Python asks the finder of an editable install last. In the folder above a clone, it would take
    the clone, a folder of the right name without ``__init__.py``, for an empty package. So another
    finder comes first and passes such folders over.
    """

    def run(self) -> None:
        fill_mim(ROOT / 'mmwcc' / '.mim', link=True)
        super().run()
        for wheel in Path(self.dist_dir).glob('mmwcc-*.whl'):
            change_wheel(
                wheel,
                {
                    '.dist-info/top_level.txt': lambda text: f'{ROOT / "mmwcc"}\nmmwcc\n',
                    '_finder.py': lambda text: text + PASS_CLONES_OVER,
                },
            )


PASS_CLONES_OVER = """
from importlib.machinery import PathFinder  # the finders of older setuptools (68.0) lack it


class _PassClonesOver:
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname == 'mmwcc':
            found = PathFinder.find_spec(fullname, path)
            if found is not None and found.origin is None:  # a folder without __init__.py
                return _EditableFinder.find_spec(fullname, path, target)
        return None


_install = install


def install():
    _install()
    if _PassClonesOver not in sys.meta_path:
        sys.meta_path.insert(0, _PassClonesOver)
"""


def change_wheel(wheel: Path, changes: dict[str, Callable[[str], str]]) -> None:
    """Change files in a wheel, given by the ends of their names, and their entries in RECORD."""
    with zipfile.ZipFile(wheel) as old:
        contents = {name: old.read(name) for name in old.namelist()}
    record = next(name for name in contents if name.endswith('.dist-info/RECORD'))
    for name in contents:
        for ending, change in changes.items():
            if name.endswith(ending):
                contents[name] = change(contents[name].decode()).encode()
                entry = f'{name},{digest(contents[name])},{len(contents[name])}'
                lines = contents[record].decode().splitlines()
                lines = [entry if line.startswith(f'{name},') else line for line in lines]
                contents[record] = '\n'.join([*lines, '']).encode()
    with zipfile.ZipFile(wheel, 'w', zipfile.ZIP_DEFLATED) as new:
        for name, content in contents.items():
            new.writestr(name, content)


def digest(content: bytes) -> str:
    """Return the hash of a file as RECORD writes it."""
    sha256 = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b'=')
    return f'sha256={sha256.decode()}'


SEGMENTATION = [
    'mmengine>=0.10.7', 'mmsegmentation>=1.2.2',
    'ftfy', 'regex',  # imported by mmsegmentation, which does not require them
    'setuptools<81',  # mmengine, mmcv's build and openmim import pkg_resources
]  # yapf: disable
OPENMMLAB = [*SEGMENTATION, 'mmcv>=2.1.0,<2.2.0', 'mmdet>=3.3.0']
CPU = ['numba>=0.59']
ONNX = ['onnx>=1.16', 'onnxruntime>=1.18', 'onnxscript>=0.2', 'safetensors>=0.4']
PYTEST = ['pytest>=7', 'pytest-xdist>=3.6', 'hypothesis']
OPENVINO = [*ONNX, 'openvino']
TESTS = [*OPENVINO, *PYTEST, 'pyyaml', 'setuptools>=64', 'tensorboard', 'wheel']
EXTRAS = {
    # What tools/demo.py needs besides mmcv, which mmcv-lite may stand in for there.
    'demo': [*SEGMENTATION, *CPU],
    'openmmlab': OPENMMLAB,
    'onedl': ['onedl-mmengine>=0.10.12', 'onedl-mmcv>=2.3.6', 'onedl-mmsegmentation>=1.4.2',
              'onedl-mmdetection>=3.5.1', 'ftfy', 'regex'],
    'mmpretrain': [*OPENMMLAB, 'mmpretrain>=1.2.0', 'torchvision'],
    'cpu': CPU,
    'triton': ['triton>=3.6,<3.10; platform_system == "Linux"'],
    # Newer opendatalab requires openxlab, which requires setuptools 60; torch 2.13 requires 77.
    'mim': ['openmim>=0.3.9', 'opendatalab<0.0.10', 'setuptools<81'],
    'onnx': ONNX,
    'openvino': OPENVINO,
    'docs': ['sphinx>=7.2', 'sphinx-rtd-theme>=2', 'myst-parser>=3'],
    'tests': TESTS,
    'matrix': ['nox>=2024.4.15'],
    'dev': [*TESTS, 'codespell>=2.4', 'mypy>=1.18', 'pre-commit', 'ruff>=0.14', 'types-PyYAML'],
}  # yapf: disable

if 'develop' in sys.argv[1:]:
    sys.exit(
        'setup.py: develop cannot install mmwcc.kernels, which lies outside of mmwcc/. Use `pip '
        'install -e .`'
    )

readme = ROOT / 'README.md'

setup(
    name='mmwcc',
    version=read_version(),
    description='Wavelet compression of convolutional networks for OpenMMLab: '
    'compressed training and inference',
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else '',
    long_description_content_type='text/markdown',
    author='The mmwcc authors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords='computer vision, semantic segmentation, object detection, wavelets, quantization, '
    'compression',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    package_dir={'mmwcc': 'mmwcc', 'mmwcc.kernels': 'kernels'},
    packages=[
        *find_packages(include=['mmwcc', 'mmwcc.*']),
        'mmwcc.kernels',
        *(f'mmwcc.kernels.{name}' for name in find_packages('kernels')),
    ],
    include_package_data=True,
    zip_safe=False,
    python_requires='>=3.10',
    # No OpenMMLab packages here: upstream and the maintained forks share module names, so requiring
    # one of them would install it over the other. 2.4 is the first torch with the torch.library
    # functions that are used. noxfile.py reads the oldest version and the classifiers here.
    install_requires=['torch>=2.4.1', 'numpy', 'PyWavelets'],
    extras_require=EXTRAS,
    cmdclass={'build_py': BuildWithMim, 'editable_wheel': EditableWithMim},
)
