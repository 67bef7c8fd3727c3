"""The scales of the maps between layers: learned, kept in the checkpoint, and rounded to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from mmwcc.layers import QuantConv2d
from mmwcc.model_tree import LayerState, obstacle, run_on_zeros, width_obstacle
from mmwcc.quantizers import LearnedClipActQuantizer, UniformQuantizer, settle_after_forward

from .flow import map_flow
from .plan import MapPlan, plan_maps
from .watching import MapWatcher, watching

__all__ = ['MAP_SCALES', 'FollowedMaps', 'MapScales', 'add_map_scales', 'map_obstacle']

MAP_SCALES = 'map_scales'
"""The name under which a network, and its checkpoint, hold the :class:`MapScales`."""

_WIDEST = 8


def map_obstacle(layer: nn.Module) -> str:
    """Return why a layer cannot read its input as an 8-bit map, or ''."""
    if type(layer) is not QuantConv2d:
        return 'not a quantized convolution'
    if layer.padding_mode != 'zeros' or isinstance(layer.padding, str):
        return f'padding={layer.padding!r}, padding_mode={layer.padding_mode!r}'
    if LayerState.of(layer).widths is not None:
        return 'a scale for every position'
    return width_obstacle(layer) or obstacle(layer)


class _Rounding(MapWatcher):
    """Round each stored map to its grid as soon as it is made."""

    def __init__(
        self,
        layers: Mapping[str, str],
        norms: Collection[str],
        own: Mapping[str, UniformQuantizer],
        borrowed: Mapping[str, UniformQuantizer],
    ) -> None:
        super().__init__(layers, norms)
        self._own, self._borrowed = own, borrowed

    def made(self, name: str, operation: str, reads: list[str], result: Tensor) -> Tensor:
        return self.averaged(name, result)

    def averaged(self, name: str, result: Tensor) -> Tensor:
        if name in self._own:
            return self._own[name](result)
        reader = self._borrowed.get(name)
        # A layer's quantizer learns from what the layer reads, and must not meet it twice.
        if reader is None or reader.is_learning or not reader.is_settled:
            return result
        return reader(result)


class FollowedMaps(nn.Module, ABC):
    """A part of a network that follows its maps in each forward pass.

    Args:
        plan: Which maps are stored, and on which grids.
    """

    def __init__(self, plan: MapPlan) -> None:
        super().__init__()
        self.plan = plan
        self._running: list[Any] = []

    def forward(self, x: Any) -> Any:
        """Return the input: an ``nn.Sequential`` calls whatever it holds, and so this as well."""
        return x

    @abstractmethod
    def watcher(self, model: nn.Module) -> MapWatcher:
        """Return what follows the maps during one pass of the network."""

    def join(self, model: nn.Module) -> None:
        """Become part of a network, and follow its maps in each forward pass from now on."""
        parameter = next(model.parameters(), None)
        self.train(model.training).to(None if parameter is None else parameter.device)
        setattr(model, MAP_SCALES, self)
        model.register_forward_pre_hook(self._enter)
        model.register_forward_hook(self._leave, always_call=True)

    def leave(self, model: nn.Module) -> None:
        """Be no longer a part of a network, and follow its maps no more."""
        delattr(model, MAP_SCALES)
        for hooks in (model._forward_pre_hooks, model._forward_hooks):
            own = [key for key, hook in hooks.items() if getattr(hook, '__self__', None) is self]
            for key in own:
                del hooks[key]
                model._forward_hooks_always_called.pop(key, None)

    def _enter(self, model: nn.Module, inputs: tuple) -> None:
        context = watching(self.watcher(model), model)
        context.__enter__()
        self._running.append(context)

    def _leave(self, model: nn.Module, inputs: tuple, output: Any) -> None:
        if self._running:
            self._running.pop().__exit__(None, None, None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_running': []}


class MapScales(FollowedMaps):
    """The quantizers of the maps that have a grid of their own, by the names of the maps.

    As long as a network holds it, each of its forward passes rounds the stored maps: those with a
    quantizer here by that, the others by the quantizer of the layer that reads them. Signed grids
    have their lowest level.

    Args:
        plan: Which maps are stored, and on which grids.
        bits: Bits of a map. Defaults to 8.
        signed: Whether negative values have levels. With None, calibration decides for each map.
            Defaults to None.
    """

    def __init__(self, plan: MapPlan, bits: int = 8, signed: bool | None = None) -> None:
        super().__init__(plan)
        for name in plan.own:
            quantizer = LearnedClipActQuantizer(bits, signed=signed, symmetric=False)
            self.add_module(name.replace('.', '/'), quantizer)

    def of(self, name: str) -> Any:
        """Return the quantizer of a map that has a grid of its own."""
        return self._modules[name.replace('.', '/')]

    def unlearned(self) -> list[str]:
        """Return the maps that have not learned their scale."""
        quantizers = {name: self.of(name) for name in self.plan.own}
        return [
            name
            for name, quantizer in quantizers.items()
            if not (quantizer.is_settled or quantizer.met_zeros_alone)
        ]

    def quantizers(self, model: nn.Module) -> dict[str, UniformQuantizer]:
        """Return what rounds each stored map, by the name of the map.

        Args:
            model: The network that holds the scales.
        """
        layers: dict[str, Any] = dict(model.named_modules())
        return {
            name: layers[grid].act_quant if self.plan.on_layer(name) else self.of(grid)
            for name, grid in self.plan.grids.items()
        }

    def watcher(self, model: nn.Module) -> MapWatcher:
        stored = self.quantizers(model)
        borrowed = {name: q for name, q in stored.items() if self.plan.on_layer(name)}
        return _Rounding(
            {name: name for name in self.plan.layers},
            self.plan.norms.values(),
            {name: q for name, q in stored.items() if name not in borrowed},
            borrowed,
        )


def add_map_scales(
    model: nn.Module,
    input_shape: tuple[int, ...] = (128, 128),
    bits: int = 8,
    signed: bool | None = None,
    round_sums: bool = False,
) -> MapScales:
    """Give a network scales for the maps between its quantized layers.

    The network runs once on zeros, which shows which maps there are. The scales are learned like
    any other clip: by :func:`mmwcc.post_training.calibrate`, or by training.

    Args:
        model: A compressed network.
        input_shape: Height and width of the image of zeros, or its shape (channels, height, width).
            Defaults to (128, 128).
        bits: Bits of a map. Defaults to 8.
        signed: Whether negative values have levels, as TensorRT wants it. With None, calibration
            decides for each map. Defaults to None.
        round_sums: Whether layers also round what activations other than ReLU and ReLU6, products
            and other functions read. ONNX Runtime computes convolutions fast only then. Other
            runtimes lose accuracy by it and gain nothing. Defaults to False.

    Returns:
        The scales, which the network now holds as ``model.map_scales``.

    Raises:
        ValueError: If bits is not an integer from 2 to 8, the network has scales already, no layer
            can read 8-bit maps, or the network cannot run on zeros.
    """
    if not isinstance(bits, int) or isinstance(bits, bool) or not 2 <= bits <= _WIDEST:
        raise ValueError(
            f'add_map_scales: bits must be an integer from 2 to {_WIDEST}, got {bits!r}. Maps are '
            'stored in bytes; use 8.'
        )
    layers = {name: module for name, module in model.named_modules() if not map_obstacle(module)}
    dense = [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Conv2d and not obstacle(module)
    ]
    if hasattr(model, MAP_SCALES):
        raise ValueError(
            f'add_map_scales: model must have no scales of maps yet, got a {type(model).__name__} '
            f'that has them as {MAP_SCALES}. Use those, or start from a model without.'
        )
    if not layers:
        raise ValueError(
            f'add_map_scales: model must have a QuantConv2d of at most {_WIDEST} bits, got '
            f'{type(model).__name__} without one. Compress it with a preset such as quant_w8a8.'
        )
    maps, norms = map_flow(
        model,
        layers,
        lambda: run_on_zeros(
            'add_map_scales',
            model,
            input_shape,
            lambda: None,
            purpose='follow its maps',
            remedy='Give the shape of an input that it can take.',
        ),
        dense,
    )
    scales = MapScales(plan_maps(maps, norms, layers, round_sums), bits, signed)
    scales.join(model)
    settle_after_forward(model)
    return scales
