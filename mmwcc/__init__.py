"""Wavelet compression of convolutional networks for OpenMMLab: WCC layers, quantizers, schedules, presets."""
from mmwcc import compat

from .version import __version__

__all__ = ['__version__']

compat.apply()
