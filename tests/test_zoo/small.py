"""Stock configs with a small backbone."""

from typing import Any

from mmengine.config import Config

_FEWER = {256: 64, 512: 128, 1024: 256, 2048: 512}


def small_backbone(config: Config) -> None:
    """Replace ResNet-50 and deeper ones by ResNet-18, whose maps have a quarter of the channels."""
    model = config.model
    backbone = model.backbone
    if backbone.type not in ('ResNet', 'ResNetV1c') or backbone.depth == 18:
        return
    backbone.depth = 18
    for part in ('neck', 'decode_head', 'auxiliary_head'):
        _follow(model.get(part), 'neck' not in model or part == 'neck')


def _follow(part: Any, reads_backbone: bool) -> None:
    """Let a part that reads the backbone expect fewer channels."""
    if isinstance(part, list):
        for item in part:
            _follow(item, reads_backbone)
        return
    if not isinstance(part, dict) or not reads_backbone:
        return
    for key in ('in_channels', 'c1_in_channels'):
        if key in part:
            old: Any = part[key]
            part[key] = (
                [_FEWER.get(value, value) for value in old]
                if isinstance(old, (list, tuple))
                else _FEWER.get(old, old)
            )
