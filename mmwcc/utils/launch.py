"""Steps that tools/train.py and tools/test.py share.

Each step rejects bad input before anything has been built.
"""

from __future__ import annotations

import copy
import pickle
import zipfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, RUNNERS, DefaultScope, init_default_scope
from mmengine.runner import CheckpointLoader, Runner
from mmengine.runner.checkpoint import load_from_local
from torch import nn

from mmwcc.compat import get_installed_path, load_from_safetensors
from mmwcc.compressed_config import compression_path, is_compressed
from mmwcc.messages import did_you_mean
from mmwcc.requirements import require

__all__ = [
    'LaunchError',
    'build_model',
    'build_runner',
    'check_checkpoint',
    'find_config',
    'is_address',
    'load_config',
    'model_config',
    'separate_visualizer',
    'set_work_dir',
]


class LaunchError(RuntimeError):
    """A request on the command line that cannot be carried out. The user needs no traceback."""


def load_config(path: str, options: dict | None = None, launcher: str = 'none') -> Config:
    """Read a config file and merge the options of the command line into it.

    Args:
        path: The config file, or its hub path such as 'mmseg::pspnet/NAME.py'.
        options: Keys and values of ``--cfg-options``. Defaults to None.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``. Defaults to ``'none'``.

    Raises:
        LaunchError: If there is no such file or package, or an option changes the top-level
            ``compression`` of a compressed config. The model has its own copy of that, so the
            option would have no effect.
    """
    cfg = Config.fromfile(find_config(path))
    cfg.launcher = launcher
    for key in options or {}:
        if key.split('.')[0] == 'compression' and is_compressed(cfg.get('model', {})):
            inner = '.'.join([compression_path(cfg.model), *key.split('.')[1:]])
            raise LaunchError(
                f'--cfg-options {key} has no effect, for the model of {path} took its own copy of '
                f'`compression` when the file was read. Use model.{inner}.'
            )
    if options is not None:
        cfg.merge_from_dict(options)
    return cfg


def find_config(path: str) -> Path:
    """Return where a config file is.

    Args:
        path: The file, or its hub path: a package, two colons and the path in its configs folder.

    Raises:
        LaunchError: If there is no such file or package.
    """
    file = Path(path)
    if file.is_file():
        return file
    package, colons, name = path.partition('::')
    if not colons:
        raise LaunchError(
            f'The config file {path} does not exist (looked from {Path.cwd()}). Check the path; '
            'configs that come with mmwcc are in the configs folder, and `mim train mmwcc NAME.py` '
            'finds them by name.'
        )
    try:
        folder = Path(get_installed_path(package), '.mim', 'configs')
    except PackageNotFoundError as error:
        raise LaunchError(
            f'The config {path} is in the package {package}, which is not installed. Install it, '
            'or give the path of a file.'
        ) from error
    if not (folder / name).is_file():
        there = [file.relative_to(folder).as_posix() for file in folder.rglob('*.py')]
        raise LaunchError(
            f'The package {package} has no config {name} in {folder}. '
            f'{did_you_mean(name, there, cutoff=0.4)}Give its path in this folder.'
        )
    return folder / name


def model_config(cfg: Config) -> ConfigDict:
    """Return ``cfg.model``.

    Raises:
        LaunchError: If the config has no ``model``.
    """
    if 'model' not in cfg:
        raise LaunchError(
            f'{cfg.filename} has no `model`. Give a config that can be trained, not one of its '
            'bases.'
        )
    return cfg.model


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config the way a runner does, on the CPU and without weights.

    Raises:
        LaunchError: If the config has no ``model``.
    """
    settings = copy.deepcopy(model_config(cfg))
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    if 'data_preprocessor' not in settings and 'data_preprocessor' in cfg:
        settings['data_preprocessor'] = cfg.data_preprocessor
    return MODELS.build(settings)


def set_work_dir(cfg: Config, work_dir: str | None) -> None:
    """Set ``cfg.work_dir``.

    The command line comes first, then the config, then ``./work_dirs/<name of the config>``.
    """
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = f'./work_dirs/{Path(cfg.filename).stem}'


def build_runner(cfg: Config) -> Runner:
    """Build the runner that ``runner_type`` of a config names, or mmengine's if it names none.

    Raises:
        LaunchError: If mmengine's runner is needed and the config has no ``model``.
    """
    if 'runner_type' not in cfg:
        model_config(cfg)
        return Runner.from_cfg(cfg)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        return RUNNERS.build(cfg)


def separate_visualizer(cfg: Config) -> None:
    """Give a run a visualizer of its own, which a process that trains several configs needs.

    Visualizers of one name are one object. It would write the logs of all runs into the folder of
    the first.
    """
    if cfg.get('visualizer'):
        cfg.visualizer.name = f'visualizer of {cfg.work_dir}'


def is_address(path: str) -> bool:
    """Tell whether a checkpoint has to be fetched from elsewhere, as ``https://...`` does.

    The loaders that mmengine knows decide. A colon proves nothing, because local paths contain
    colons too, in Windows drives and in time stamps.
    """
    loader = CheckpointLoader._get_checkpoint_loader(path)
    return loader not in (load_from_local, load_from_safetensors)


def check_checkpoint(path: str) -> None:
    """Reject a missing, truncated, damaged or unloadable checkpoint before a run is set up.

    The file is read once, without keeping its tensors. Addresses (see :func:`is_address`) are left
    to mmengine.

    Args:
        path: A checkpoint.

    Raises:
        LaunchError: If the file does not exist.
        LaunchError: If the file is empty, truncated or damaged.
        LaunchError: If the file holds objects that ``torch.load`` refuses.
    """
    if is_address(path):
        return
    file = Path(path).expanduser()
    if not file.is_file():
        raise LaunchError(
            f'The checkpoint {path} does not exist (looked from {Path.cwd()}).{_others(file)}'
        )
    damage = _damage(file)
    if damage:
        raise LaunchError(
            f'The checkpoint {path} ({file.stat().st_size:,} bytes) is not usable: {damage}. It '
            'was probably cut off while being saved or copied. Copy or download it again, or use '
            f'another one.{_others(file)}'
        )


def _damage(file: Path) -> str:
    """Return what is wrong with a checkpoint file, or an empty string."""
    if file.stat().st_size == 0:
        return 'it is empty'
    if file.suffix == '.safetensors':
        return _safetensors_damage(file)
    with file.open('rb') as stream:
        is_zip = stream.read(4) == b'PK\x03\x04'
    try:
        if is_zip:  # the format of torch.save since 1.6; torch does not verify its checksums
            with zipfile.ZipFile(file) as archive:
                member = archive.testzip()
            if member:
                return f'the checksum of {member} in it does not match'
        torch.load(file, map_location='meta' if is_zip else 'cpu')
    except zipfile.BadZipFile:
        return 'its table of contents, which comes last, is missing'
    except pickle.UnpicklingError as error:
        if not is_zip and 'GLOBAL' not in str(error):
            return 'it is not a file that torch.save wrote'
        raise _refusal(file, error) from error
    except (EOFError, RuntimeError, KeyError, ValueError) as error:
        return (
            f'torch.load says {str(error).splitlines()[0]!r}' if str(error) else 'it ends too early'
        )
    return ''


def _safetensors_damage(file: Path) -> str:
    require('safetensors', f'The checkpoint {file}')
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, 'pt'):
            return ''
    except SafetensorError as error:
        return f'safetensors says {str(error)!r}'


def _refusal(file: Path, error: Exception) -> LaunchError:
    reason = str(error).partition('WeightsUnpickler error: ')[2].strip().partition('\n')[0]
    return LaunchError(
        f'The checkpoint {file} is complete, but torch.load refuses objects in it by default, '
        f'because loading them could run any code: {reason or error} If you trust where the file '
        'comes from, set the environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 and run again.'
    )


def _others(file: Path) -> str:
    """Name the other checkpoints in the same folder, latest first."""
    others = (
        [path for path in file.parent.glob('*.pth') if path != file] if file.parent.is_dir() else []
    )
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return (
        f' In the same folder, latest first: {", ".join(path.name for path in others[:5])}.'
        if others
        else ''
    )
