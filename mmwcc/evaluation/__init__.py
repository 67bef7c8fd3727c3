"""Metrics that OpenMMLab lacks."""
from importlib.util import find_spec

__all__ = []

if find_spec('mmengine') is not None:
    from .accuracy import Accuracy
    from .reconstruction import ReconstructionPSNR
    __all__ += ['Accuracy', 'ReconstructionPSNR']
