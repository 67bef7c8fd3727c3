"""Stock configs with a small backbone."""

from typing import Any

from mmengine.config import Config

_FEWER = {256: 64, 512: 128, 1024: 256, 2048: 512}


def small_backbone(config: Config) -> None:
    """Replace ResNet-50 and deeper ones by ResNet-18, whose maps have a quarter of the channels."""
    model = config.model
    if model.backbone.type not in ('ResNet', 'ResNetV1c') or model.backbone.depth == 18:
        return
    model.backbone.depth = 18
    for part in _readers(model):
        for key in ('in_channels', 'c1_in_channels'):
            if key in part:
                part[key] = _fewer(part[key])


def _readers(model: Any) -> list[dict]:
    """Return the parts that read the backbone: the first neck, or else the heads."""
    if 'neck' in model:
        return [model.neck[0] if isinstance(model.neck, list) else model.neck]
    parts = []
    for key in ('decode_head', 'auxiliary_head'):
        part = model.get(key) or []
        parts += part if isinstance(part, list) else [part]
    return parts


def _fewer(channels: Any) -> Any:
    if isinstance(channels, (list, tuple)):
        return [_fewer(value) for value in channels]
    return _FEWER.get(channels, channels)
