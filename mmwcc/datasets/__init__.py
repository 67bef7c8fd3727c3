"""Datasets: synthetic streets with exact labels (mmengine only), and CamVid where mmsegmentation is installed."""
from importlib.util import find_spec

from .street_scene import Camera, StreetScene, StreetWorld, render, render_street

__all__ = ['Camera', 'StreetScene', 'StreetWorld', 'render', 'render_street']

if find_spec('mmengine') is not None:
    from .synthetic_street import LoadSyntheticStreet, SyntheticStreetDataset
    __all__ += ['LoadSyntheticStreet', 'SyntheticStreetDataset']

if find_spec('mmseg') is not None:
    from .camvid import CamVidDataset
    __all__ += ['CamVidDataset']
