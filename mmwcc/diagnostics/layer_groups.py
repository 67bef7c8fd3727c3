"""Statistics of many layers as a few scalars: mean, minimum and maximum over groups of layers.

The scalar of a group is called ``<prefix>/<statistic>/<group>/<measure>``, where the measure is one
of :data:`MEASURES`. The scalar of a single layer is called ``<prefix>/<statistic>/<layer>``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from statistics import fmean
from typing import NamedTuple

__all__ = [
    'GROUPINGS',
    'MEASURES',
    'TRAINING_PREFIX',
    'VALIDATION_PREFIX',
    'ScalarName',
    'group_of',
    'group_scalars',
    'parse_scalar',
]

TRAINING_PREFIX, VALIDATION_PREFIX = 'compression', 'compression_val'
"""Prefixes of the scalars."""
GROUPINGS = ('kind', 'stage', 'layer')
MEASURES = ('mean', 'min', 'max')

# The stages of a backbone are numbered, as in backbone.layer2 or backbone.stages.3.
_STAGE = re.compile(r'backbone(\.[^.\d]+)?\.[^.]*\d+(?=\.|$)')


class ScalarName(NamedTuple):
    """The parts of the name of a scalar.

    Attributes:
        prefix: :data:`TRAINING_PREFIX` or :data:`VALIDATION_PREFIX`.
        statistic: Name of the statistic.
        group: Name of a group, or of a layer.
        measure: One of :data:`MEASURES`, or None if ``group`` is a single layer.
    """

    prefix: str
    statistic: str
    group: str
    measure: str | None

    def __str__(self) -> str:
        return '/'.join(part for part in self if part is not None)


def parse_scalar(name: str) -> ScalarName | None:
    """Take the name of a scalar apart.

    Returns:
        Its parts, or None if it is not the name of a statistic of layers.

    Example:
        >>> parse_scalar('compression/act_sqnr/QuantConv2d/mean').measure
        'mean'
        >>> parse_scalar('compression/act_sqnr/backbone.conv1').group
        'backbone.conv1'
    """
    prefix, *rest = name.split('/', 2)
    if prefix not in (TRAINING_PREFIX, VALIDATION_PREFIX) or len(rest) < 2:
        return None
    statistic, group = rest
    for measure in MEASURES:
        if group.endswith(f'/{measure}'):
            return ScalarName(prefix, statistic, group.removesuffix(f'/{measure}'), measure)
    return ScalarName(prefix, statistic, group, None)


def group_of(layer: str, kind: str, by: str) -> str:
    """Return the group that a layer belongs to.

    Args:
        layer: Qualified name of the layer.
        kind: Name of its class.
        by: One of :data:`GROUPINGS`: 'kind' for layers of the same class, 'stage' for the stages of
            a backbone and the other parts of a network, or 'layer' for every layer by itself.

    Example:
        >>> group_of('backbone.layer2.0.conv1', 'QuantConv2d', 'stage')
        'backbone.layer2'
        >>> group_of('decode_head.convs.0.conv', 'QuantConv2d', 'stage')
        'decode_head'
    """
    if by == 'kind':
        return kind
    if by == 'layer':
        return layer
    stage = _STAGE.match(layer)
    return stage.group() if stage else layer.partition('.')[0]


def group_scalars(
    prefix: str, measured: Mapping[str, Mapping[str, float]], groups: Mapping[str, str]
) -> dict[str, float]:
    """Return the scalars of groups of layers.

    Args:
        prefix: :data:`TRAINING_PREFIX` or :data:`VALIDATION_PREFIX`.
        measured: The statistics of each layer by name.
        groups: The group of each layer.

    Example:
        >>> measured = dict(a=dict(act_sqnr=20.0), b=dict(act_sqnr=30.0))
        >>> scalars = group_scalars('compression', measured, dict(a='all', b='all'))
        >>> scalars['compression/act_sqnr/all/mean']
        25.0
    """
    members: dict[tuple[str, str], list[float]] = {}
    for layer, statistics in measured.items():
        for statistic, value in statistics.items():
            members.setdefault((statistic, groups[layer]), []).append(value)
    return {
        str(ScalarName(prefix, statistic, group, measure)): value
        for (statistic, group), values in members.items()
        for measure, value in zip(MEASURES, (fmean(values), min(values), max(values)), strict=True)
    }
