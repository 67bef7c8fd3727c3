"""Conversion of a whole network whose maps have scales: layers, BatchNorm and maps in integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmwcc.maps import MAP_SCALES, MapScales
from mmwcc.messages import some_of
from mmwcc.model_tree import all_or_nothing, replace_layers

from .fold import fold_batch_norm
from .integer_levels import act_grid
from .map_conv import IntegerMapConv2d
from .map_grids import MapGrids
from .quantized_map import QuantizedMap

__all__ = ['convert_maps', 'map_scales']

_IN_CPP = ('mmcv.ops', 'torchvision.ops')  # their modules pass tensors to code in C++ directly


def map_scales(model: nn.Module) -> MapScales | None:
    """Return the scales of a network's maps, see :func:`mmwcc.maps.add_map_scales`, or None."""
    scales = getattr(model, MAP_SCALES, None)
    return scales if isinstance(scales, MapScales) else None


def convert_maps(
    model: nn.Module,
    scales: MapScales,
    others: Mapping[nn.Module, nn.Module] | None = None,
    *,
    weights: bool = True,
) -> dict[nn.Module, nn.Module]:
    """Replace the layers between the maps of a network by integer ones, in place.

    BatchNorm layers that can be folded become ``nn.Identity``, also those behind layers that
    compute in floating point.

    Args:
        model: A network with scales of maps.
        scales: These scales.
        others: What replaces other layers of the network. Defaults to None, nothing.
        weights: Whether the new layers take over weights and scales. If not, a checkpoint of an
            integer network can fill them. Defaults to True.

    Returns:
        The integer form of each layer that has one, with those of ``others``.

    Raises:
        RuntimeError: If a clip or a scale of a map has not been learned.
        ValueError: If a weight is NaN.
    """
    plan = scales.plan
    grids = MapGrids(plan).train(model.training)
    layers: dict[str, Any] = {name: model.get_submodule(name) for name in plan.layers}
    norms: dict[str, Any] = {name: model.get_submodule(norm) for name, norm in plan.norms.items()}
    made = {name: IntegerMapConv2d(layer, name, grids) for name, layer in layers.items()}
    if weights:
        _take_scales(grids, scales)
        for name, integer in made.items():
            integer.take(layers[name], norms.get(name))
    grids.belong_to(made)
    replaced: dict[nn.Module, nn.Module] = {norm: nn.Identity() for norm in norms.values()}
    for name in norms.keys() - layers.keys():
        dense: Any = model.get_submodule(name)
        replaced[dense] = fold_batch_norm(dense, norms[name])
    integers = dict(others or {})
    for name, layer in layers.items():
        integers[layer] = made[name].to(layer.weight.device).train(layer.training)
    with all_or_nothing(model):
        replace_layers(model, {**replaced, **integers})
    scales.leave(model)
    setattr(model, MAP_SCALES, grids)
    for module in model.modules():
        if type(module).__module__.startswith(_IN_CPP):
            module.register_forward_pre_hook(_with_values, with_kwargs=True)
    return integers


def _take_scales(grids: MapGrids, scales: MapScales) -> None:
    unlearned = scales.unlearned()
    if unlearned:
        raise RuntimeError(
            'to_integer: every map must have learned its scale, got maps that have not: '
            f'{some_of(unlearned)}. Calibrate the model on some images '
            '(mmwcc.post_training.calibrate with again=False).'
        )
    for name in grids.plan.own:
        grids.of(name).take(*act_grid(scales.of(name)))


def _with_values(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Give code in C++ dense float tensors, which it reads by their addresses."""
    return tuple(map(_dense, args)), {key: _dense(value) for key, value in kwargs.items()}


def _dense(value: Any) -> Any:
    return value.dequantize().contiguous() if isinstance(value, QuantizedMap) else value
