"""Hooks for mmengine runners: compression over time, checked checkpoints, exact resuming, training in stages."""
from .compression_check_hook import CompressionCheckHook
from .compression_schedule_hook import CompressionScheduleHook
from .fuse_hook import FuseHook
from .random_state_hook import RandomStateHook
from .training_stage_hook import TrainingStageHook
from .wae_figure_hook import WAEFigureHook

__all__ = [
    'CompressionCheckHook', 'CompressionScheduleHook', 'FuseHook', 'RandomStateHook', 'TrainingStageHook',
    'WAEFigureHook'
]
