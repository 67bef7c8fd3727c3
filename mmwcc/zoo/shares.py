"""How much of a network is compressed, and why the rest is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from mmwcc.compression import layer_kind
from mmwcc.model_tree import CompressionReport

__all__ = ['LARGE', 'shares']

LARGE = 0.05
"""Share of the operations above which what stays dense needs a reason."""


def shares(model: nn.Module, report: CompressionReport) -> dict[str, Any]:
    """Return which shares of a model's operations are compressed, and why the others are not.

    Args:
        model: The compressed model.
        report: What the conversion did, with its gain.

    Returns:
        Plain data: ``macs`` of the dense network, the shares of these in ``wavelet`` and
        ``quantized`` layers, ``dense``, which lists the kind, the number of layers, the share and
        the reason of what is in full precision, and ``uncounted``: operators that no rule counts.
    """
    cost, everything = report.gain.cost, report.gain.dense_macs
    totals = dict.fromkeys(('wcc', 'quantized', 'dense', 'transform'), 0.0)
    dense: dict[tuple[str, str], list[float]] = {}
    for layer, macs in _counted(cost.layers):
        totals[layer.kind] += macs
        if layer.kind == 'dense':
            kind = layer_kind(model.get_submodule(layer.name), layer)
            dense.setdefault((kind, _reason(layer.name, report)), []).append(macs)
    stays = [
        dict(kind=kind, reason=reason, layers=len(macs), share=sum(macs) / everything)
        for (kind, reason), macs in dense.items()
    ]
    return dict(
        macs=everything,
        wavelet=totals['wcc'] / everything,
        quantized=totals['quantized'] / everything,
        dense=sorted(stays, key=lambda part: -part['share']),
        uncounted=dict(cost.uncounted),
    )


def _counted(layers: list) -> Iterator[tuple[Any, float]]:
    for layer in layers:
        macs = sum(image.macs for image in layer.geometry.maps)
        if macs:
            yield layer, macs


def _reason(name: str, report: CompressionReport) -> str:
    """Return why a layer is in full precision, or '' if the report of a convolution does not say.

    Whatever is not in the report is no ``nn.Conv2d``.
    """
    reasons = [layer.reason for layer in report if layer.name == name]
    return reasons[0] if reasons else 'is no nn.Conv2d'
