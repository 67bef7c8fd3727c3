"""Sharing a budget of bit operations among layers by choosing keep_ratio and bits for each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mmwcc.compression import QUANT_TYPE
from mmwcc.cost import CostReport, LayerCost
from mmwcc.model_tree import aligned, setting_cells

from .choices import Choice, Grid, LayerSensitivity

__all__ = ['Allocation', 'Candidate', 'allocate', 'allocated_compression', 'find_candidates']


@dataclass(frozen=True)
class Candidate:
    """One way to compress one layer, with its cost and its effect on the output.

    Attributes:
        choice: Bits and keep_ratio.
        bops: Bit operations of the layer, including its transforms.
        divergence: Predicted divergence of the network's output.
    """

    choice: Choice
    bops: float
    divergence: float


@dataclass(frozen=True)
class Allocation:
    """The candidate chosen for every layer; prints as a table.

    Attributes:
        layers: The chosen candidate of each layer.
        budget: Bit operations that the network may take.
        bound: Lower bound: no choice of candidates within the budget has a lower divergence.
        fixed: Bit operations of layers that have no candidates.
    """

    layers: dict[str, Candidate]
    budget: float
    bound: float
    fixed: float = 0.0

    @property
    def bops(self) -> float:
        """Bit operations of the network."""
        return self.fixed + sum(candidate.bops for candidate in self.layers.values())

    @property
    def divergence(self) -> float:
        """Predicted divergence, the sum over layers."""
        return sum(candidate.divergence for candidate in self.layers.values())

    def summary(self) -> str:
        """State the totals in one line."""
        return (
            f'{self.bops / 1e9:,.3f} of {self.budget / 1e9:,.3f} G BOPs, predicted divergence '
            f'{self.divergence:.5f} (no choice below {self.bound:.5f})'
        )

    def __str__(self) -> str:
        cells: list[tuple[str, ...]] = [
            ('layer', 'w bits', 'a bits', 'keep', 'M BOPs', 'divergence')
        ]
        for name, candidate in self.layers.items():
            choice = candidate.choice
            setting = setting_cells(choice.weight_bits, choice.act_bits, choice.keep_ratio)
            cells.append(
                (name, *setting, f'{candidate.bops / 1e6:,.3f}', f'{candidate.divergence:.6f}')
            )
        return '\n'.join([*aligned(cells, numeric=range(1, 6)), self.summary()])


def find_candidates(
    sensitivity: Iterable[LayerSensitivity], cost: CostReport, grid: Grid | None = None
) -> dict[str, list[Candidate]]:
    """List the candidates: every measured combination of bits and keep_ratio with its cost.

    Args:
        sensitivity: The measured sensitivity of each layer.
        cost: Cost of the compressed model. Its bits and keep ratios do not matter.
        grid: Values to choose from, to use only some of the measured ones. Defaults to None, which
            uses all.

    Returns:
        The candidates of each layer.

    Raises:
        ValueError: If a layer is missing from cost, or if the grid leaves it no candidate.
    """
    costs = {layer.name: layer for layer in cost.layers}
    found = {}
    for layer in sensitivity:
        if layer.name not in costs:
            raise ValueError(
                'find_candidates: cost must count every layer of sensitivity, got none for '
                f'{layer.name}. Count the same model, on an input that reaches it.'
            )
        geometry = costs[layer.name].geometry
        found[layer.name] = [
            Candidate(
                choice,
                LayerCost.of(
                    layer.name,
                    geometry,
                    choice.weight_bits,
                    choice.act_bits,
                    choice.keep_ratio,
                    costs[layer.name].widths,
                ).total_bops,
                layer.divergence(choice),
            )
            for choice in layer.choices()
            if grid is None or _within(choice, grid)
        ]
        if not found[layer.name]:
            raise ValueError(
                'find_candidates: grid must leave every layer a choice, got none for '
                f'{layer.name}. Choose from the values that were measured.'
            )
    return found


def _within(choice: Choice, grid: Grid) -> bool:
    if choice.weight_bits not in (*grid.weight_bits, 32):
        return False
    if choice.keep_ratio == 1:  # a budget of bits decides how many positions are kept
        return choice.act_bits in (*grid.mean_bits, 32)
    return choice.act_bits in (*grid.act_bits, 32) and choice.keep_ratio in (
        *grid.keep_ratios,
        None,
    )


def _gain(cheap: Candidate, dear: Candidate) -> float:
    """Return the divergence that each additional bit operation saves."""
    return (cheap.divergence - dear.divergence) / (dear.bops - cheap.bops)


def _hull(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the lower convex hull, cheapest first.

    Along the hull, each step saves less divergence per bit operation than the one before.
    """
    hull: list[Candidate] = []
    for candidate in sorted(
        candidates, key=lambda candidate: (candidate.bops, candidate.divergence)
    ):
        if hull and candidate.divergence >= hull[-1].divergence:
            continue
        while len(hull) > 1 and _gain(hull[-2], candidate) >= _gain(hull[-2], hull[-1]):
            hull.pop()
        hull.append(candidate)
    return hull


def allocate(
    candidates: Mapping[str, Sequence[Candidate]], budget: float, fixed: float = 0.0
) -> Allocation:
    """Choose one candidate for each layer, for the least sum of divergences within a budget.

    This is the multiple-choice knapsack problem. Every layer starts with its cheapest candidate.
    Then the steps along the convex hulls of all layers are taken in the order of what they save per
    bit operation. This Lagrangian solution is optimal for every budget that it uses up exactly. The
    rest of the budget is filled with the single changes that save most. The bound tells how far
    from optimal the result can be.

    Args:
        candidates: The candidates of each layer.
        budget: Bit operations that the network may take.
        fixed: Bit operations of its layers without candidates. Defaults to 0.

    Returns:
        The chosen candidates.

    Raises:
        ValueError: If there is no layer, or if even the cheapest candidates exceed the budget.

    Example:
        >>> cheap, dear = Candidate(Choice(8, 4), 1.0, 0.9), Candidate(Choice(8, 8), 2.0, 0.1)
        >>> allocate(dict(a=[cheap, dear], b=[cheap]), budget=3.0).divergence
        1.0
    """
    hulls = {name: _hull(options) for name, options in candidates.items()}
    chosen = {name: hull[0] for name, hull in hulls.items()}
    left = budget - fixed - sum(candidate.bops for candidate in chosen.values())
    if not chosen or left < 0:
        raise ValueError(
            'allocate: budget must be at least what the network costs with the cheapest '
            f'candidates of {len(chosen)} layers, {budget - left:,.0f} bit operations, got '
            f'{budget:,.0f}. Raise it, or allow fewer bits or smaller keep ratios.'
        )
    bound = None
    steps = [
        (name, before, after) for name, hull in hulls.items() for before, after in pairwise(hull)
    ]
    for name, before, after in sorted(steps, key=lambda step: -_gain(*step[1:])):
        price = after.bops - before.bops
        if price > left and bound is None:  # taking part of this step would be optimal
            bound = (
                sum(candidate.divergence for candidate in chosen.values())
                - _gain(before, after) * left
            )
        if price <= left and chosen[name] is before:
            chosen[name], left = after, left - price
    _fill(chosen, candidates, left)
    total = sum(candidate.divergence for candidate in chosen.values())
    return Allocation(chosen, budget, total if bound is None else bound, fixed)


def _fill(
    chosen: dict[str, Candidate], candidates: Mapping[str, Sequence[Candidate]], left: float
) -> None:
    """Make the single change that saves most, as long as one fits into what is left."""
    while True:
        changes = [
            (chosen[name].divergence - option.divergence, name, option)
            for name, options in candidates.items()
            for option in options
            if option.divergence < chosen[name].divergence
            and option.bops - chosen[name].bops <= left
        ]
        if not changes:
            return
        _, name, option = max(changes, key=lambda change: change[0])
        left -= option.bops - chosen[name].bops
        chosen[name] = option


def allocated_compression(compression: Mapping, allocation: Allocation) -> dict:
    """Return a compression dictionary with an additional rule for each layer of an allocation.

    Args:
        compression: The dictionary that the sensitivity was measured with.
        allocation: The candidates chosen for the layers.
    """
    rules = []
    for name, candidate in allocation.layers.items():
        choice = candidate.choice
        rule: dict[str, Any] = dict(pattern=re.escape(name))
        if choice.keep_ratio is None:
            rule['type'] = QUANT_TYPE
        else:
            rule['keep_ratio'] = choice.keep_ratio
        for role, bits in (('weight_quant', choice.weight_bits), ('act_quant', choice.act_bits)):
            if bits != 32:
                rule[role] = dict(bits=bits)
        rules.append(rule)
    return {**compression, 'rules': [*compression.get('rules', ()), *rules]}
