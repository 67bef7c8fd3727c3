"""Monocular depth on mmengine: Monodepth2 with its decoder, pose network, geometry and losses."""

from .data_preprocessor import DepthDataPreprocessor
from .depth_decoder import DepthDecoder
from .monodepth2 import Monodepth2
from .pose_network import PoseNetwork

__all__ = ['DepthDataPreprocessor', 'DepthDecoder', 'Monodepth2', 'PoseNetwork']
