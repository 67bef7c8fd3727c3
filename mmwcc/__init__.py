"""Wavelet compression of convolutional networks for OpenMMLab.

The package has WCC layers, quantizers, schedules and presets.
"""

from mmwcc import compat, requirements

from .version import __version__

__all__ = ['__version__']

compat.apply()
requirements.apply()
