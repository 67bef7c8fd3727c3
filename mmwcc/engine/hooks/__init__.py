"""Hooks for mmengine runners: compression schedules, checkpoint checks, exact resuming, stages."""

from .benchmark_hook import BenchmarkHook
from .calibration_hook import CalibrationHook
from .compression_check_hook import CompressionCheckHook, add_check
from .compression_schedule_hook import CompressionScheduleHook
from .compression_stats_hook import CompressionStatsHook
from .cost_hook import CostHook
from .distillation_hook import DistillationHook
from .feature_compression_vis_hook import FeatureCompressionVisHook
from .fuse_hook import FuseHook
from .quantizer_freeze_hook import QuantizerFreezeHook
from .random_state_hook import RandomStateHook
from .training_stage_hook import TrainingStageHook
from .wae_figure_hook import WAEFigureHook

__all__ = [
    'BenchmarkHook',
    'CalibrationHook',
    'CompressionCheckHook',
    'CompressionScheduleHook',
    'CompressionStatsHook',
    'CostHook',
    'DistillationHook',
    'FeatureCompressionVisHook',
    'FuseHook',
    'QuantizerFreezeHook',
    'RandomStateHook',
    'TrainingStageHook',
    'WAEFigureHook',
    'add_check',
]
