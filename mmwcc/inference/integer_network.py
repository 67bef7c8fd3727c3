"""Conversion of a whole network whose maps have scales: layers, BatchNorm and maps in integers."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmwcc.maps import MAP_SCALES, MapScales
from mmwcc.model_tree import all_or_nothing, replace_layers

from .integer_levels import act_grid
from .map_conv import IntegerMapConv2d
from .map_grids import MapGrids

__all__ = ['convert_maps', 'has_map_scales']

_NAMED = 5


def has_map_scales(model: nn.Module) -> bool:
    """Tell whether the maps of a network have scales, see :func:`mmwcc.maps.add_map_scales`."""
    return isinstance(getattr(model, MAP_SCALES, None), MapScales)


def convert_maps(model: nn.Module, *, weights: bool = True) -> dict[str, nn.Module]:
    """Replace the layers between the maps of a network by integer ones, in place.

    BatchNorm layers that can be folded become ``nn.Identity``.

    Args:
        model: A network with scales of maps.
        weights: Whether the new layers take over weights and scales. If not, a checkpoint of an
            integer network can fill them. Defaults to True.

    Returns:
        The integer layers by name.

    Raises:
        RuntimeError: If a clip or a scale of a map has not been learned.
        ValueError: If a weight is NaN.
    """
    scales: Any = getattr(model, MAP_SCALES)
    plan = scales.plan
    grids = MapGrids(plan).train(model.training)
    layers: dict[str, Any] = {name: model.get_submodule(name) for name in plan.layers}
    norms = {name: model.get_submodule(norm) for name, norm in plan.norms.items()}
    made = {name: IntegerMapConv2d(layer, name, grids) for name, layer in layers.items()}
    if weights:
        _take_scales(grids, scales)
        for name, integer in made.items():
            integer.take(layers[name], norms.get(name))
    grids.belong_to(made)
    replaced: dict[Any, nn.Module] = {norm: nn.Identity() for norm in norms.values()}
    for name, layer in layers.items():
        replaced[layer] = made[name].to(layer.weight.device).train(layer.training)
    with all_or_nothing(model):
        replace_layers(model, replaced)
        setattr(model, MAP_SCALES, grids)
    scales.leave(model)
    return dict(made)


def _take_scales(grids: MapGrids, scales: MapScales) -> None:
    unlearned = [name for name in grids.plan.own if not scales.of(name).is_settled]
    if unlearned:
        more = f' and {len(unlearned) - _NAMED} more' if len(unlearned) > _NAMED else ''
        raise RuntimeError(
            'to_integer: every map must have learned its scale, got maps that have not: '
            f'{", ".join(unlearned[:_NAMED])}{more}. Calibrate the model on some images '
            '(mmwcc.post_training.calibrate with again=False).'
        )
    for name in grids.plan.own:
        grids.of(name).take(*act_grid(scales.of(name)))
