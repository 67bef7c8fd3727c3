"""The cost of a model as data: by layer, in total, at other bits or keep ratios, and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mmwcc.model_tree import aligned, setting_cells

from .layer_cost import KINDS, LayerCost

__all__ = ['CostReport', 'CostSum']


@dataclass(frozen=True)
class CostSum:
    """The summed costs of several layers; attributes as in :class:`LayerCost`."""

    layers: int = 0
    macs: float = 0
    bops: float = 0
    transform_bops: float = 0
    params: int = 0
    weight_bytes: int = 0
    act_bytes: int = 0

    @classmethod
    def of(cls, costs: Iterable[LayerCost]) -> CostSum:
        """Add up the costs of layers."""
        costs = list(costs)
        return cls(
            len(costs), *(sum(getattr(cost, amount) for cost in costs) for amount in _AMOUNTS)
        )

    @property
    def total_bops(self) -> float:
        """Bit operations of products and transforms."""
        return self.bops + self.transform_bops

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {key: getattr(self, key) for key in ('layers', *_AMOUNTS, 'total_bops')}


_AMOUNTS = ('macs', 'bops', 'transform_bops', 'params', 'weight_bytes', 'act_bytes')
_FULL_PRECISION_BYTES = 4


@dataclass(frozen=True)
class CostReport:
    """The cost of a model in one run on one input; prints as a table.

    Attributes:
        layers: The layers that were called, in the order of the model.
        convention: 'exact' or 'paper'.
        input_shape: Shape of the input with the batch dimension, or None if there were several.
        elementwise: Operations of normalization, interpolation and pooling by operator, as mmengine
            counts them. No other figure includes them.
        uncounted: Operators without a rule, and how often each was called.
        uncalled: Parts of the model that the input does not reach. Their parameters are not
            counted.
        other_params: Parameters outside ``layers``: normalization and clips of quantizers.
    """

    layers: list[LayerCost]
    convention: str
    input_shape: tuple[int, ...] | None
    elementwise: Mapping[str, float] = field(default_factory=dict)
    uncounted: Mapping[str, int] = field(default_factory=dict)
    uncalled: tuple[str, ...] = ()
    other_params: int = 0

    @property
    def total(self) -> CostSum:
        """The sum over all layers, including the parameters outside them."""
        return self._with_others(CostSum.of(self.layers))

    @property
    def kept_share(self) -> float:
        """Fraction of the multiplications of 1x1 convolutions that remains with wavelets.

        Without 1x1 convolutions it is 1.0. Convention 'exact' counts padded feature maps, so a keep
        ratio near 1 can give more than 1.
        """
        pointwise = [layer for layer in self.layers if layer.geometry.pointwise]
        dense = sum(image.macs for layer in pointwise for image in layer.geometry.maps)
        return sum(layer.macs for layer in pointwise) / dense if dense else 1.0

    def by_kind(self) -> dict[str, CostSum]:
        """Return the sum for each of :data:`KINDS`; together they make up :attr:`total`.

        All wavelet transforms count as 'transform', including those of compressed layers, so 'wcc'
        only has the products. Parameters outside the layers count as 'dense'.
        """
        sums = {
            kind: CostSum.of(layer for layer in self.layers if layer.kind == kind) for kind in KINDS
        }
        moved = sums['wcc'].transform_bops
        sums['wcc'] = replace(sums['wcc'], transform_bops=0)
        sums['transform'] = replace(
            sums['transform'], transform_bops=sums['transform'].transform_bops + moved
        )
        sums['dense'] = self._with_others(sums['dense'])
        return sums

    def _with_others(self, costs: CostSum) -> CostSum:
        return replace(
            costs,
            params=costs.params + self.other_params,
            weight_bytes=costs.weight_bytes + _FULL_PRECISION_BYTES * self.other_params,
        )

    def at(self, states: Mapping[str, Mapping[str, Any]]) -> CostReport:
        """Return the cost if some layers had other bits or keep ratios.

        The model is not run again.

        Args:
            states: Arguments of :meth:`LayerCost.at` by layer name.

        Raises:
            ValueError: If a name is not that of a layer, or if a layer rejects its values.
        """
        unknown = sorted(set(states) - {layer.name for layer in self.layers})
        if unknown:
            raise ValueError(
                f'CostReport: states must name layers that were counted, got {unknown[0]!r}. The '
                'names are those of `layers`.'
            )
        return replace(
            self, layers=[layer.at(**states.get(layer.name, {})) for layer in self.layers]
        )

    def summary(self) -> str:
        """State the totals in one line."""
        total = self.total
        return (
            f'{total.macs / 1e9:,.3f} G MACs, {total.total_bops / 1e9:,.3f} G BOPs '
            f'({total.transform_bops / 1e9:,.3f} of transforms), {total.params / 1e6:,.3f} M '
            f'parameters in {total.weight_bytes / 1e6:,.3f} MB, activations '
            f'{total.act_bytes / 1e6:,.3f} MB'
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return dict(
            convention=self.convention,
            input_shape=None if self.input_shape is None else list(self.input_shape),
            total=self.total.to_dict(),
            by_kind={kind: costs.to_dict() for kind, costs in self.by_kind().items()},
            layers=[layer.to_dict() for layer in self.layers],
            elementwise=dict(self.elementwise),
            uncounted=dict(self.uncounted),
            uncalled=list(self.uncalled),
            other_params=self.other_params,
        )

    def __str__(self) -> str:
        cells: list[tuple[str, ...]] = [
            (
                'layer',
                'kind',
                'calls',
                'w bits',
                'a bits',
                'keep',
                'M MACs',
                'M BOPs',
                'transform',
                'params',
                'w kB',
                'a kB',
            )
        ]
        for layer in self.layers:
            setting = setting_cells(layer.weight_bits, layer.act_bits, layer.keep_ratio)
            cells.append((layer.name, layer.kind, str(layer.calls), *setting, *_amounts(layer)))
        for kind, costs in (*self.by_kind().items(), ('total', self.total)):
            if costs.layers or costs.total_bops or costs.params:
                cells.append((kind, '', *[''] * 4, *_amounts(costs)))
        lines = aligned(cells, numeric=range(2, 12))
        lines.insert(2 + len(self.layers), lines[1])
        return '\n'.join([*lines, self.summary(), *self._footnotes()])

    def _footnotes(self) -> list[str]:
        shape = (
            'several inputs'
            if self.input_shape is None
            else f'input {"x".join(map(str, self.input_shape))}'
        )
        notes = [f'{shape}; convention {self.convention!r}; full precision counts as 32 bits']
        for what, numbers in (
            ('elementwise, not in the figures above', self.elementwise),
            ('not counted', {name: f'{calls}x' for name, calls in self.uncounted.items()}),
        ):
            if numbers:
                notes.append(
                    f'{what}: '
                    + ', '.join(
                        f'{name} {value if isinstance(value, str) else f"{value / 1e6:,.3f} M"}'
                        for name, value in numbers.items()
                    )
                )
        if self.uncalled:
            notes.append(
                f'not reached by this input, parameters not counted: {", ".join(self.uncalled)}'
            )
        return notes


def _amounts(costs: LayerCost | CostSum) -> list[str]:
    millions = [f'{value / 1e6:,.3f}' for value in (costs.macs, costs.bops, costs.transform_bops)]
    return [
        *millions,
        f'{costs.params:,}',
        *(f'{value / 1e3:,.1f}' for value in (costs.weight_bytes, costs.act_bytes)),
    ]
