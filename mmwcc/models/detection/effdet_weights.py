"""Convert the weights of published EfficientDets to our names and conventions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .bifpn import pyramid_nodes

__all__ = ['COCO_ROWS', 'from_effdet']

COCO_ROWS = tuple(
    number - 1 for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
)
"""Indices of the 80 classes of COCO among its 90 category numbers, in annotation order."""

_LEVELS, _ANCHORS = 5, 9
# Stage of mmdetection's EfficientNet for each stage here; it merges stages of the same size.
_STAGE = {0: 1, 1: 2, 2: 3, 3: 4, 4: 4, 5: 5, 6: 5}
_BLOCK = {
    'conv_pw': 'expand_conv.conv',
    'bn1': 'expand_conv.bn',
    'conv_dw': 'depthwise_conv.conv',
    'bn2': 'depthwise_conv.bn',
    'se.conv_reduce': 'se.conv1.conv',
    'se.conv_expand': 'se.conv2.conv',
    'conv_pwl': 'linear_conv.conv',
    'bn3': 'linear_conv.bn',
}
# The first stage does not expand.
_FIRST_BLOCK = _BLOCK | {
    'bn1': 'depthwise_conv.bn',
    'conv_pw': 'linear_conv.conv',
    'bn2': 'linear_conv.bn',
}
_SEPARABLE = {'conv_dw': 'depthwise_conv', 'conv_pw': 'pointwise_conv'}


def from_effdet(
    weights: Mapping[str, Tensor], classes: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Rename the weights of a published ``efficientdet_d0`` to ``d7``.

    The source is https://github.com/rwightman/efficientdet-pytorch. Box outputs are reordered from
    (y, x, h, w) to (x, y, w, h). They are also rescaled, because the original rounds the anchor
    shapes 1.41 and 0.71 to 1.4 and 0.7, while our anchors are exactly twice as high as wide, or the
    reverse.

    Args:
        weights: The state dict of a network with symmetric padding and without redundant biases
            (names without ``tf_``).
        classes: Which class outputs to keep, and in which order; :data:`COCO_ROWS` for
            mmdetection's 80 classes of COCO. Defaults to None, all.

    Returns:
        The state dict of a detector of ``configs/efficientdet``.

    Raises:
        ValueError: If a name is not one of an EfficientDet, or the outputs are not those of nine
            anchors.
        ValueError: If classes are not among the outputs.
    """
    depths = _stage_depths(weights)
    ours = {_renamed(name, depths): value for name, value in weights.items()}
    for branch, numbers in (('cls', None), ('reg', 4)):
        for kind in ('weight', 'bias'):
            name = f'bbox_head.{branch}_predictor.pointwise_conv.{kind}'
            if (
                name not in ours
                or len(ours[name]) % _ANCHORS
                or numbers not in (None, len(ours[name]) // _ANCHORS)
            ):
                found = tuple(ours[name].shape) if name in ours else 'none'
                raise ValueError(
                    f'from_effdet: the {branch} predictor must have outputs for {_ANCHORS} '
                    f'anchors, got a {kind} of shape {found}. Use weights of an efficientdet with '
                    'three scales and three shapes of anchors.'
                )
            rows = ours[name].unflatten(0, (_ANCHORS, -1))
            rows = _to_ours(rows, kind) if branch == 'reg' else _chosen(rows, classes)
            ours[name] = rows.flatten(0, 1)
    return ours


def _stage_depths(weights: Mapping[str, Tensor]) -> dict[int, int]:
    blocks = {
        tuple(map(int, match.groups()))
        for name in weights
        if (match := re.match(r'backbone\.blocks\.(\d+)\.(\d+)\.', name))
    }
    return {stage: sum(1 for other, _ in blocks if other == stage) for stage in _STAGE}


def _renamed(name: str, depths: dict[int, int]) -> str:
    """Return our name of a weight."""
    if match := re.fullmatch(r'backbone\.(conv_stem|bn1)\.(\w+)', name):
        return f'backbone.layers.0.{"conv" if match[1] == "conv_stem" else "bn"}.{match[2]}'
    if match := re.fullmatch(r'backbone\.blocks\.([0-6])\.(\d+)\.(.+)\.(\w+)', name):
        stage, block, layers = (
            int(match[1]),
            int(match[2]),
            _BLOCK if int(match[1]) else _FIRST_BLOCK,
        )
        if match[3] in layers:
            before = depths[stage - 1] if _STAGE.get(stage - 1) == _STAGE[stage] else 0
            return f'backbone.layers.{_STAGE[stage]}.{before + block}.{layers[match[3]]}.{match[4]}'
    if match := re.fullmatch(r'fpn\.resample\.3\.conv\.(.+)', name):
        return f'neck.extra.{match[1]}'
    if match := re.fullmatch(r'fpn\.cell\.(\d+)\.fnode\.([0-7])\.(.+)', name):
        node = _renamed_in_node(match[3], pyramid_nodes(_LEVELS)[int(match[2])])
        if node is not None:
            return f'neck.cells.{match[1]}.nodes.{match[2]}.{node}'
    if match := re.fullmatch(
        r'(class|box)_net\.(conv_rep|predict)(\.\d+)?\.(conv_dw|conv_pw)\.(\w+)', name
    ):
        layer = 'convs' if match[2] == 'conv_rep' else 'predictor'
        return f'{_branch(match[1])}_{layer}{match[3] or ""}.{_SEPARABLE[match[4]]}.{match[5]}'
    if match := re.fullmatch(r'(class|box)_net\.bn_rep\.(\d+\.\d+)\.bn\.(\w+)', name):
        return f'{_branch(match[1])}_norms.{match[2]}.{match[3]}'
    raise ValueError(
        f'from_effdet: {name!r} must be the name of a weight of an EfficientDet of '
        'rwightman/efficientdet-pytorch, and is not. Use the state dict of efficientdet_d0 to d7.'
    )


def _branch(name: str) -> str:
    return f'bbox_head.{"cls" if name == "class" else "reg"}'


def _renamed_in_node(name: str, sources: tuple[int, ...]) -> str | None:
    if name == 'combine.edge_weights':
        return 'weights'
    if match := re.fullmatch(r'combine\.resample\.(\d+)\.conv\.(.+)', name):
        return (
            f'laterals.{sources.index(int(match[1]))}.{match[2]}'
            if int(match[1]) in sources
            else None
        )
    if match := re.fullmatch(r'after_combine\.conv\.(conv_dw|conv_pw)\.(\w+)', name):
        return f'conv.conv.{_SEPARABLE[match[1]]}.{match[2]}'
    if match := re.fullmatch(r'after_combine\.conv\.(bn\.\w+)', name):
        return f'conv.{match[1]}'
    return None


def _chosen(rows: Tensor, classes: Sequence[int] | None) -> Tensor:
    if classes is None:
        return rows
    if not classes or not all(0 <= number < rows.shape[1] for number in classes):
        raise ValueError(
            f'from_effdet: classes must be among the {rows.shape[1]} outputs, got '
            f'{tuple(classes)}. Leave them out to keep all.'
        )
    return rows[:, list(classes)]


def _to_ours(rows: Tensor, kind: str) -> Tensor:
    """Reorder the four numbers of a box, and make them relative to our anchors.

    Two in three of our anchors are a little larger.
    """
    rows = rows[:, [1, 0, 3, 2]].clone()
    growth = torch.tensor([1.0, 2**0.5 / 1.4, 2**-0.5 / 0.7], dtype=torch.float64).repeat(3)
    growth = growth.view(-1, *[1] * (rows.dim() - 1))
    rows[:, :2] = (rows[:, :2] / growth).to(rows.dtype)
    if kind == 'bias':
        rows[:, 2:] = (rows[:, 2:] - growth.log()).to(rows.dtype)
    return rows
