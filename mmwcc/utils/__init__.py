"""Tools that programs need around a model: registration, configs, checkpoints and runners."""

from .command_line import one_line_errors, quiet
from .compression_file import CONFIG_SUFFIXES, write_compression
from .launch import (
    LaunchError,
    build_model,
    build_runner,
    check_checkpoint,
    find_config,
    is_address,
    load_config,
    model_config,
    separate_visualizer,
    set_work_dir,
)
from .pixels import reverses_channels, undo_normalization
from .post_training import calibration_batches, dense_config
from .resuming import check_resumable, nothing_resumed, refuse_new_start, resume_hint
from .setup_env import register_all_modules
from .trained import load_trained, spread_batches
from .work_dir import refuse_occupied_work_dir

__all__ = [
    'CONFIG_SUFFIXES',
    'LaunchError',
    'build_model',
    'build_runner',
    'calibration_batches',
    'check_checkpoint',
    'check_resumable',
    'dense_config',
    'find_config',
    'is_address',
    'load_config',
    'load_trained',
    'model_config',
    'nothing_resumed',
    'one_line_errors',
    'quiet',
    'refuse_new_start',
    'refuse_occupied_work_dir',
    'register_all_modules',
    'resume_hint',
    'reverses_channels',
    'separate_visualizer',
    'set_work_dir',
    'spread_batches',
    'undo_normalization',
    'write_compression',
]
