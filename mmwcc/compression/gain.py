"""What a compression gains: operations, what stays dense, the expected speed, and a warning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from mmwcc.cost import CostReport, LayerCost, count_cost
from mmwcc.inference import IntegerLayer
from mmwcc.model_tree import FULL_PRECISION, class_name, unwrapped

from .only_if_faster import MapCall, SpeedTable
from .small_gain import why_small

__all__ = ['Gain', 'Part', 'Speed', 'expected_gain', 'layer_kind']

_DENSE_BITS = FULL_PRECISION * FULL_PRECISION
_SHOWN = 4


@dataclass(frozen=True)
class Part:
    """Layers of one kind.

    Attributes:
        kind: What they are, for example 'Conv2d 3x3' or 'products of MultiheadAttention'.
        layers: How many there are.
        macs: Their multiply-accumulate operations before the compression.
        bops: Their bit operations now.
    """

    kind: str
    layers: int
    macs: float
    bops: float


@dataclass(frozen=True)
class Speed:
    """The expected speed, which is that of the compressed model divided by that of the dense one.

    Attributes:
        layers: The layers that wavelets reach.
        network: The network, if the time of all other layers is in proportion to their MACs and
            does not change.
        unmeasured: Number of wavelet layers whose transform is not in the table. They count as
            unchanged.
        machine: What the table was measured for.
    """

    layers: float
    network: float
    unmeasured: int
    machine: str

    def __str__(self) -> str:
        left_out = f', {self.unmeasured} layers not measured' if self.unmeasured else ''
        slowdown, remedy = '', ''
        if self.network < 1:
            slowdown = 'a slowdown: '
            remedy = (
                '; only_if_faster=dict(input_shape=(H, W)) in the compression dictionary leaves '
                'out the slower layers'
            )
        return (
            f'{slowdown}x{self.layers:.2f} in wavelet layers, x{self.network:.2f} in the network'
            f'{left_out}; an estimate from a table measured for {self.machine}{remedy}'
        )


@dataclass(frozen=True)
class Gain:
    """What a compression gains on one input; prints as a few lines.

    The dense network is this one without quantizers and transforms. If the compression splits
    convolutions first (``separate``), it is the network with the split convolutions.

    Attributes:
        cost: The cost of the compressed model.
        parts: The layers that no wavelet reaches, by kind, those with most MACs first.
        dense_parts: The layers in full precision, by kind, those with most bit operations first.
        tiny: Wavelet layers whose maps are smaller than a patch on this input, so that they take
            more operations than the dense layer, and how many times as many.
        speed: The expected speed, or None if it is not known.
    """

    cost: CostReport
    parts: tuple[Part, ...]
    dense_parts: tuple[Part, ...]
    tiny: Mapping[str, float]
    speed: Speed | None

    @classmethod
    def of(cls, model: nn.Module, cost: CostReport, table: SpeedTable | None = None) -> Gain:
        """Compute the gain from the cost of a compressed model.

        Args:
            model: The model.
            cost: What :func:`mmwcc.cost.count_cost` counted for it.
            table: Measured speeds. Defaults to None, which takes the table that comes with mmwcc.
        """
        model = unwrapped(model)
        wavelets = [layer for layer in cost.layers if layer.kind == 'wcc']
        others = [layer for layer in cost.layers if layer.kind != 'wcc' and _dense_macs(layer)]
        parts = _parts(model, others)
        dense = _parts(model, [layer for layer in others if layer.kind == 'dense'])
        tiny = {
            layer.name: layer.macs / _dense_macs(layer)
            for layer in wavelets
            if _is_tiny(layer) and layer.macs > _dense_macs(layer)
        }
        integers = any(isinstance(module, IntegerLayer) for module in model.modules())
        return cls(
            cost,
            tuple(sorted(parts, key=lambda part: -part.macs)),
            tuple(sorted(dense, key=lambda part: -part.bops)),
            tiny,
            _speed(cost, wavelets, table or SpeedTable()) if wavelets and not integers else None,
        )

    @property
    def dense_macs(self) -> float:
        """Multiply-accumulate operations of the dense network."""
        return sum(map(_dense_macs, self.cost.layers))

    @property
    def reached(self) -> float:
        """Share of these operations that wavelets reach."""
        outside = sum(part.macs for part in self.parts)
        return 1 - outside / self.dense_macs if self.dense_macs else 0.0

    @property
    def warning(self) -> str:
        """Why the gain is small and what to do about it, or '' if it is not."""
        return ' '.join(why_small(self))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        total = self.cost.total
        return dict(
            input_shape=None if self.cost.input_shape is None else list(self.cost.input_shape),
            macs=[self.dense_macs, total.macs],
            bops=[_DENSE_BITS * self.dense_macs, total.total_bops],
            transform_bops=total.transform_bops,
            reached=self.reached,
            parts=[asdict(part) for part in self.parts],
            dense_parts=[asdict(part) for part in self.dense_parts],
            tiny=dict(self.tiny),
            speed=None if self.speed is None else asdict(self.speed),
            warning=self.warning,
        )

    def __str__(self) -> str:
        return '\n'.join(filter(None, [self.table, self.warning]))

    @property
    def table(self) -> str:
        """The lines without the warning."""
        total, shape = self.cost.total, self.cost.input_shape
        given = 'several inputs' if shape is None else f'an input of {"x".join(map(str, shape))}'
        dense_bops = _DENSE_BITS * self.dense_macs
        lines = [
            f'What this gains for {given}:',
            f'  MACs   {_change(self.dense_macs, total.macs)}; '
            f'wavelets reach {self.reached:.1%} of the dense MACs',
            f'  BOPs   {_change(dense_bops, total.total_bops)}, '
            f'of these {_amount(total.transform_bops, dense_bops)} in transforms',
        ]
        if self.dense_parts:
            lines.append(f'  dense  {_listed(self.dense_parts, total.total_bops)}')
        if self.speed is not None:
            lines.append(f'  speed  {self.speed}')
        return '\n'.join(lines)


def expected_gain(
    model: nn.Module,
    input_shape: Sequence[int] | None = None,
    *,
    inputs: Any = None,
    table: SpeedTable | None = None,
) -> Gain:
    """Count what the compression of a model gains, in one run of the model.

    Args:
        model: A compressed model.
        input_shape: As in :func:`mmwcc.cost.count_cost`, like inputs.
        table: Measured speeds. Defaults to None, which takes the table that comes with mmwcc.

    Raises:
        ModuleNotFoundError: If mmengine is missing.
        ValueError: As in :func:`mmwcc.cost.count_cost`.

    Example:
        >>> from mmwcc.layers import WaveletCompressedConv2d
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), WaveletCompressedConv2d(8, 8, keep_ratio=0.5))
        >>> gain = expected_gain(model, (34, 34))
        >>> gain.dense_macs, gain.cost.total.macs, f'{gain.reached:.1%}'
        (286720, 253952, '22.9%')
    """
    return Gain.of(model, count_cost(model, input_shape, inputs=inputs), table)


def _dense_macs(layer: LayerCost) -> float:
    return sum(image.macs for image in layer.geometry.maps)


def _is_tiny(layer: LayerCost) -> bool:
    patch = 2**layer.geometry.levels
    return all(min(image.size) < patch for image in layer.geometry.maps if image.levels is None)


def _parts(model: nn.Module, layers: Iterable[LayerCost]) -> Iterator[Part]:
    """Yield the sums of layers of the same kind."""
    kinds: dict[str, list[LayerCost]] = {}
    for layer in layers:
        kinds.setdefault(layer_kind(model.get_submodule(layer.name), layer), []).append(layer)
    for kind, members in kinds.items():
        macs, bops = sum(map(_dense_macs, members)), sum(layer.total_bops for layer in members)
        yield Part(kind, len(members), macs, bops)


def layer_kind(module: nn.Module, layer: LayerCost) -> str:
    """Describe what a layer is, as in :attr:`Part.kind`."""
    if not layer.geometry.weights:
        return f'products of {type(module).__name__}'  # of maps, or with a weight of its own
    if isinstance(module, nn.Conv2d):
        size = 'x'.join(map(str, module.kernel_size))
        return f'{"Conv2d" if module.groups == 1 else "grouped Conv2d"} {size}'
    return 'Linear' if isinstance(module, nn.Linear) else class_name(module)


def _speed(cost: CostReport, wavelets: Sequence[LayerCost], table: SpeedTable) -> Speed:
    """Estimate the speed, taking dense time as proportional to MACs."""
    measured = [
        layer for layer in wavelets if table.covers(layer.geometry.wavelet, layer.geometry.levels)
    ]
    dense, compressed = sum(map(_dense_macs, wavelets)), 0.0
    for layer in wavelets:
        ratio = _speedup(layer, table) if layer in measured else 1.0
        compressed += _dense_macs(layer) / ratio
    rest = sum(map(_dense_macs, cost.layers)) - dense
    return Speed(
        dense / compressed,
        (dense + rest) / (compressed + rest),
        len(wavelets) - len(measured),
        table.machine,
    )


def _speedup(layer: LayerCost, table: SpeedTable) -> float:
    geometry = layer.geometry
    assert geometry.pointwise is not None and layer.packed_ratio is not None, 'a wavelet layer'
    calls = [
        MapCall((image.size[0], image.size[1]), geometry.levels_of(image), image.batch)
        for image in geometry.maps
    ]
    return table.speedup_of_calls(*geometry.pointwise, calls, layer.packed_ratio)


def _amount(value: float, largest: float | None = None) -> str:
    """Return a number of operations in a unit that suits it, or that suits the largest number."""
    if max(value, largest or 0) >= 1e8:
        return f'{value / 1e9:,.2f} G'
    return f'{value / 1e6:,.3f} M'


def _change(before: float, after: float) -> str:
    change = after / before - 1 if before else 0.0
    return f'{_amount(before)} -> {_amount(after, before)} ({change:+.1%})'


def _listed(parts: Sequence[Part], total: float) -> str:
    """List the layers in full precision with their shares of the remaining bit operations."""
    bops = sum(part.bops for part in parts)
    shown = ', '.join(
        f'{part.kind} {part.bops / total:.1%} (layers: {part.layers})' for part in parts[:_SHOWN]
    )
    more = f' and {len(parts) - _SHOWN} more kinds' if len(parts) > _SHOWN else ''
    share = f'{bops / total:.1%} of the remaining BOPs'
    return f'{_amount(bops)} BOPs in full precision ({share}): {shown}{more}'
