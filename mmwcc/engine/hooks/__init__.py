"""Hooks for mmengine runners: compression over time, checked checkpoints, exact resuming."""
from .compression_check_hook import CompressionCheckHook
from .compression_schedule_hook import CompressionScheduleHook
from .random_state_hook import RandomStateHook

__all__ = ['CompressionCheckHook', 'CompressionScheduleHook', 'RandomStateHook']
