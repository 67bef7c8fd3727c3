"""What ``import mmwcc`` changes in mmengine and torch, each against the case that fails without
it.
"""

import io
import pickle
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from mmwcc import compat

mmengine = pytest.importorskip('mmengine')
HistoryBuffer = pytest.importorskip('mmengine.logging').HistoryBuffer
refusing_torch = pytest.mark.skipif(
    mmengine.utils.digit_version(torch.__version__) < (2, 6),
    reason='torch.load refuses unknown classes since 2.6',
)


def run(code: str) -> str:
    """Run code in a new interpreter, with warnings about other packages off; return what it
    prints.
    """
    command = [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(code)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def saved(content) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    return buffer


def test_import_loads_neither_torch_nor_mmengine():
    assert run("import sys, mmwcc; print(sorted({'torch', 'mmengine'} & set(sys.modules)))") == '[]'


@pytest.mark.parametrize('imports', ['mmwcc, mmengine, torch', 'mmengine, torch, mmwcc'])
def test_any_order_of_imports(imports):
    assert (
        run(f"""
        import {imports}
        from mmengine.config import Config, config, utils
        from mmengine.logging import HistoryBuffer
        print(utils.MODULE2PACKAGE['mmwcc'], config.get_installed_path.__module__,
            config.is_installed.__module__,
              mmengine.utils.get_installed_path.__module__,
                  any(isinstance(entry, tuple) and entry[0] is HistoryBuffer
                      for entry in torch.serialization.get_safe_globals()))
        """)
        == 'mmwcc mmwcc.compat mmwcc.compat mmwcc.compat True'
    )


def test_apply_twice_changes_nothing():
    finders, allowed = list(sys.meta_path), torch.serialization.get_safe_globals()
    compat.apply()
    assert sys.meta_path == finders
    assert set(torch.serialization.get_safe_globals()) == set(allowed)


def test_mmwcc_configs_are_inherited(tmp_path):
    from mmengine.config import Config

    (tmp_path / 'child.py').write_text("_base_ = ['mmwcc::_base_/compression/wcc_w8a8_k50.py']\n")
    assert 'compression' in Config.fromfile(tmp_path / 'child.py')


def test_configs_are_inherited_without_pkg_resources(tmp_path):
    """As with setuptools 82 and newer, which have no ``pkg_resources``."""
    pytest.importorskip('mmseg')
    (tmp_path / 'child.py').write_text("_base_ = ['mmseg::_base_/schedules/schedule_20k.py']\n")
    assert (
        run(f"""
        import sys
        sys.modules['pkg_resources'] = None
        import mmwcc
        from mmengine.config import Config
        print(Config.fromfile({str(tmp_path / 'child.py')!r}).train_cfg.max_iters)
        """)
        == '20000'
    )


def test_forks_of_mmseg_are_found_by_their_module(tmp_path, monkeypatch):
    """The maintained fork installs the module mmseg from a distribution that is not called
    mmsegmentation.
    """
    mmseg = pytest.importorskip('mmseg')
    from mmengine.config import Config

    def distribution(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(compat.metadata, 'distribution', distribution)
    assert compat.is_installed('mmsegmentation')
    assert compat.get_installed_path('mmsegmentation') == str(Path(mmseg.__file__).parent)
    (tmp_path / 'child.py').write_text("_base_ = ['mmseg::_base_/schedules/schedule_20k.py']\n")
    assert Config.fromfile(tmp_path / 'child.py').train_cfg.max_iters == 20000


@pytest.mark.parametrize('name', ['mmengine', 'mmwcc'])
def test_installed_path_is_the_folder_of_the_module(name):
    module = sys.modules[name]
    assert compat.is_installed(name)
    assert Path(compat.get_installed_path(name)) == Path(module.__file__).parent


def test_installed_path_of_a_distribution_of_another_name():
    mmseg = pytest.importorskip('mmseg')
    assert compat.get_installed_path('mmsegmentation') == str(Path(mmseg.__file__).parent)


def test_missing_package_is_missing():
    assert not compat.is_installed('no_such_package')
    with pytest.raises(metadata.PackageNotFoundError, match='no_such_package'):
        compat.get_installed_path('no_such_package')


def test_module_without_spec_is_not_a_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'made_by_hand', type(sys)('made_by_hand'))
    assert not compat.is_installed('made_by_hand')


@refusing_torch
def test_what_mmengine_saves_is_loaded():
    history = HistoryBuffer([1.0, 2.5], [1, 1])
    content = dict(
        scalars=dict(loss=history),
        statistics=HistoryBuffer._statistics_methods,
        best=np.float64(0.25),
        step=np.int64(3),
        palette=np.zeros((2, 3), np.uint8),
        random=np.random.get_state(),
    )
    loaded = torch.load(saved(content), weights_only=True)
    assert loaded['scalars']['loss'].data[0].tolist() == [1.0, 2.5]
    assert loaded['scalars']['loss'].mean() == history.mean()
    assert loaded['statistics']['max'] is HistoryBuffer.max
    assert (loaded['best'], loaded['step']) == (0.25, 3)


@refusing_torch
def test_classes_stay_allowed_when_others_load_with_a_list_of_their_own():
    """mmengine 0.10.12 loads in such a block, whose exit removes all classes that it lists."""
    history, best = HistoryBuffer([1.0], [1]), np.float64(0.25)
    listed = [HistoryBuffer, np.ndarray, np.dtype, type(np.dtype('float64')), getattr]
    for _ in range(2):
        with torch.serialization.safe_globals(listed):
            torch.load(saved(dict(loss=history, best=best)), weights_only=True)
    loaded = torch.load(saved(dict(loss=history, best=best)), weights_only=True)
    assert (loaded['loss'].current(), loaded['best']) == (1.0, 0.25)


class _Call:
    """Pickles as a call of ``function(*args)``."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@refusing_torch
@pytest.mark.parametrize(
    'forbidden',
    [
        _Call(getattr, HistoryBuffer, '__init__'),
        _Call(getattr, HistoryBuffer, 'register_statistics'),
        _Call(getattr, np.ndarray, 'min'),
        _Call(print, 'run'),
    ],
)
def test_nothing_else_is_loaded(forbidden, capsys):
    with pytest.raises(pickle.UnpicklingError):
        torch.load(saved(forbidden), weights_only=True)
    assert capsys.readouterr().out == ''


@refusing_torch
@pytest.mark.parametrize('path', ['numpy.core.multiarray', 'numpy._core.multiarray'])
def test_arrays_of_numpy_1_and_2_are_loaded(path):
    """NumPy 2 renamed ``numpy.core``, and pickles name it."""
    buffer = io.BytesIO()
    torch.save(np.arange(3.0), buffer, _use_new_zipfile_serialization=False)
    stored = buffer.getvalue()
    for name in (b'numpy.core.multiarray', b'numpy._core.multiarray'):
        stored = stored.replace(name + b'\n', path.encode() + b'\n')
    assert path.encode() in stored
    assert torch.load(io.BytesIO(stored), weights_only=True).tolist() == [0.0, 1.0, 2.0]


def test_refusal_says_what_to_do():
    with pytest.raises(pickle.UnpicklingError, match='attribute .__init__. .* weights_only=False'):
        compat._get_statistic(HistoryBuffer, '__init__')


@pytest.mark.parametrize(
    ('path', 'loader'),
    [
        (r'C:\models\net.safetensors', 'load_from_safetensors'),
        ('D:/models/net.safetensors', 'load_from_safetensors'),
        (r'\\server\share\net.safetensors', 'load_from_safetensors'),
        ('C:/net.pth', 'load_from_local'),
        ('https://host/net.safetensors', 'load_from_http'),
        ('openmmlab:s3://bucket/net.safetensors', 'load_from_ceph'),
    ],
)
def test_the_loader_of_a_checkpoint(path, loader):
    from mmengine.runner import CheckpointLoader

    assert CheckpointLoader._get_checkpoint_loader(path).__name__ == loader


@pytest.mark.parametrize('imports', ['mmwcc, mmengine', 'mmengine.config, mmwcc'])
def test_pure_python_configs_call_presets(tmp_path, imports):
    """mmengine only notes what such a config imports, so that an imported function cannot be
    called.
    """
    (tmp_path / 'dense.py').write_text(
        'from torch.nn import Conv2d\nmodel = dict(type=Conv2d, in_channels=3)\n'
    )
    (tmp_path / 'compressed.py').write_text("""
from mmengine.config import read_base
with read_base():
    from .dense import *
from mmwcc.presets import compress
model = compress(model, 'wcc_w8a8_k50')
""")
    assert (
        run(f"""
        import {imports}
        from mmengine.config import Config
        model = Config.fromfile({str(tmp_path / 'compressed.py')!r}).model
        print(model.type, model.task_type.__name__, model.in_channels,
            model.compression.pointwise.keep_ratio)
        """)
        == 'mmwcc.CompressedModel Conv2d 3 0.5'
    )
