"""The network of the whole-model benchmarks: DeepLabV3+ on MobileNetV2 as in its CamVid config."""

from __future__ import annotations

import copy
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmseg.models.utils import make_divisible
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.presets import preset

__all__ = ['compressed', 'deeplab']

CONFIG = (
    Path(__file__).resolve().parents[2]
    / 'configs/wcc/deeplabv3plus_mobilenetv2-os16_dense_3000i_camvid-256x256.py'
)


def deeplab(scale: float = 1.0) -> nn.Module:
    """Build the dense network with random weights.

    Args:
        scale: Factor on the width of the backbone; below 1 for tests. Defaults to 1.0.
    """
    config = Config.fromfile(CONFIG)
    if scale != 1.0:
        config.model.backbone.widen_factor = scale
        stage_2, stage_5, stage_7 = (
            make_divisible(channels * scale, 8) for channels in (24, 96, 320)
        )
        config.model.decode_head.update(in_channels=stage_7, c1_in_channels=stage_2, channels=16)
        config.model.auxiliary_head.update(in_channels=stage_5, channels=8)
    init_default_scope(config.default_scope)
    return MODELS.build(config.model)


def compressed(model: nn.Module, name: str | None, **changes) -> nn.Module:
    """Return a compressed copy of ``model``.

    Args:
        model: The dense network.
        name: Name of the preset. With None, the copy is not compressed.
        **changes: Changes to the preset.
    """
    model = copy.deepcopy(model)
    if name is not None:
        compress_model(model, preset(name, **changes), verbose=False)
    return model
