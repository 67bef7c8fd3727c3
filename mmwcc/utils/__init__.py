"""What programs around a model need: registering everything, reading configs, checking checkpoints, making runners."""
from .launch import LaunchError, build_runner, check_checkpoint, load_config, set_work_dir
from .setup_env import register_all_modules

__all__ = ['LaunchError', 'build_runner', 'check_checkpoint', 'load_config', 'register_all_modules', 'set_work_dir']
