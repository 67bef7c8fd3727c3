"""Operators of recordings that one operator computes with fewer passes over memory.

Each entry of :data:`PATTERNS` changes a graph in place where it finds its pattern.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

__all__ = ['PATTERNS']


def _is(node: Any, operator: Any) -> bool:
    """Tell whether a node calls an operator, and only one other node reads it."""
    return isinstance(node, fx.Node) and node.target is operator and len(node.users) == 1


def _concatenate_resized(graph: fx.Graph) -> None:
    """Write resized maps straight into their concatenation."""
    resize, cat = torch.ops.mmwcc.resize_map.default, torch.ops.mmwcc.cat_maps.default
    for node in graph.find_nodes(op='call_function', target=cat):
        first, rest, *others, align_corners = node.args
        resized = [part for part in (first, *rest) if _is(part, resize)]
        if not resized:
            continue
        align_corners = resized[0].args[3]
        same = [part for part in resized if part.args[3] == align_corners]
        parts = [part.args[0] if part in same else part for part in (first, *rest)]
        node.args = (parts[0], parts[1:], *others, align_corners)
        for part in same:
            graph.erase_node(part)


def _resize_into_planes(graph: fx.Graph) -> None:
    """Resize logits from any layout into planes, without a contiguous copy before."""
    planes = torch.ops.mmwcc.resize_planes.default
    for node in graph.find_nodes(op='call_function', target=torch.ops.aten.upsample_bilinear2d.vec):
        copy, size, align_corners, factors = node.args
        if factors is not None or not _is(copy, torch.ops.aten.contiguous.default):
            continue
        with graph.inserting_before(node):
            made = graph.call_function(planes, (copy.args[0], *size, align_corners))
        node.replace_all_uses_with(made)
        graph.erase_node(node)
        graph.erase_node(copy)


PATTERNS: tuple[Callable[[fx.Graph], None], ...] = (_concatenate_resized, _resize_into_planes)
"""The patterns, in the order in which they are looked for."""
