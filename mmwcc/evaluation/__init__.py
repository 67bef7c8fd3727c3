"""Metrics that OpenMMLab lacks."""

from importlib.util import find_spec

__all__ = []

if find_spec('mmengine') is not None:
    from .accuracy import Accuracy
    from .depth_metric import DepthMetric, depth_errors
    from .image_quality import SuperResolutionMetric
    from .reconstruction import ReconstructionPSNR

    __all__ += [
        'Accuracy',
        'DepthMetric',
        'depth_errors',
        'ReconstructionPSNR',
        'SuperResolutionMetric',
    ]
