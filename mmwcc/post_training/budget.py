"""Budgets of bit operations given as text, and measurements that can be resumed later."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from mmwcc.compression import compress_model
from mmwcc.cost import CostReport

from .allocation import Candidate, find_candidates
from .choices import Choice, Grid, LayerSensitivity
from .sensitivity import measure_sensitivity

__all__ = ['MeasuredLayers', 'budget_bops', 'budget_number', 'choosable', 'compressed_cost']

Count = Callable[[nn.Module], CostReport]
"""A function that counts the cost of a model."""


def budget_number(text: str) -> float:
    """Return a budget as a number, with percent as a fraction, or nan if it is not a number.

    Example:
        >>> budget_number('5%'), budget_number('2e11')
        (0.05, 200000000000.0)
    """
    try:
        return float(text[:-1]) / 100 if text.endswith('%') else float(text)
    except ValueError:
        return math.nan


def compressed_cost(model: nn.Module, compression: dict, count: Count) -> CostReport:
    """Count what a dense model would cost if it were compressed. The model stays as it is.

    Args:
        model: The dense model.
        compression: The ``compression`` dictionary.
        count: Counts the cost of a model.
    """
    model = deepcopy(model)
    compress_model(model, compression, verbose=False)
    return count(model)


def budget_bops(
    text: str, model: nn.Module, count: Count, presets: Mapping[str, dict] | None = None
) -> float:
    """Return the bit operations that a budget allows a network.

    Args:
        text: The name of a preset, a fraction of the dense network (up to 1, or in percent), or a
            number of operations.
        model: The dense model.
        count: Counts the cost of a model.
        presets: The ``compression`` dictionaries that text may name. Defaults to none.

    Raises:
        ValueError: If text is neither the name of a preset nor a positive number.
    """
    if presets and text in presets:
        return compressed_cost(model, presets[text], count).total.total_bops
    number = budget_number(text)
    if not number > 0:
        raise ValueError(
            'budget_bops: text must be the name of a preset or a positive number, got '
            f"{text!r}. Use '5%' for a twentieth of the dense network."
        )
    return number * count(model).total.total_bops if text.endswith('%') or number <= 1 else number


def choosable(
    layers: Sequence[LayerSensitivity],
    cost: CostReport,
    grid: Grid,
    *,
    pointwise_only: bool = False,
) -> dict[str, list[Candidate]]:
    """Return the candidates of each layer.

    Args:
        layers: The measured sensitivity of each layer.
        cost: Cost of the compressed model.
        grid: Values to choose from.
        pointwise_only: Whether layers without wavelets keep the bits that they have in ``cost``.
            Defaults to False.
    """
    candidates = find_candidates(layers, cost, grid)
    if not pointwise_only:
        return candidates
    built = {layer.name: Choice(layer.weight_bits, layer.act_bits) for layer in cost.layers}
    wavelets = {layer.name for layer in layers if layer.keep_ratio}
    return {
        name: options
        if name in wavelets
        else [option for option in options if option.choice == built[name]]
        for name, options in candidates.items()
    }


class MeasuredLayers:
    """The sensitivity of layers, saved to a file layer by layer, so that a later call can resume.

    Args:
        path: JSON file. Missing folders are created when it is written.
        settings: What the measurement depends on, as plain data. A file with other settings is
            rejected.

    Attributes:
        layers: The layers measured so far.

    Raises:
        ValueError: If the file was measured with other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = path, dict(settings)
        self.layers = self._load() if path.is_file() else []

    def _load(self) -> list[LayerSensitivity]:
        content = json.loads(self.path.read_text(encoding='utf-8'))
        for key, value in self.settings.items():
            if content['settings'].get(key) != value:
                measured = content['settings'].get(key)
                raise ValueError(
                    f'{self.path} was measured with {key} {measured}, not {value}. '
                    'Choose another folder, or delete the file.'
                )
        return [_sensitivity(layer) for layer in content['layers']]

    def keep(self, layer: LayerSensitivity) -> None:
        """Add a layer, and write the file."""
        self.layers.append(layer)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = dict(settings=self.settings, layers=[asdict(layer) for layer in self.layers])
        self.path.write_text(json.dumps(content, indent=1), encoding='utf-8')

    def measure(
        self,
        model: nn.Module,
        compression: dict,
        batches: list,
        *,
        grid: Grid,
        batch_norm: bool = True,
        verbose: bool = False,
    ) -> list[LayerSensitivity]:
        """Measure the layers that are not in the file yet, see :func:`measure_sensitivity`.

        Args:
            model: The dense model.
            compression: The ``compression`` dictionary.
            batches: Batches of images.
            grid: Values to try.
            batch_norm: Whether the statistics of BatchNorm will be estimated again. Defaults to
                True.
            verbose: Whether to say how many layers are done. Defaults to False.

        Returns:
            All layers, those of earlier calls first.
        """
        measure_sensitivity(
            model,
            compression,
            batches,
            batch_norm=batch_norm,
            on_layer=self.keep,
            grid=grid,
            skip=[layer.name for layer in self.layers],
            verbose=verbose,
        )
        return self.layers


def _sensitivity(entry: Mapping[str, Any]) -> LayerSensitivity:
    """Read a layer from JSON, where all keys are text."""
    parts: dict[str, dict] = {
        key: {
            int(value) if value.isdigit() else float(value): divergence
            for value, divergence in values.items()
        }
        for key, values in entry.items()
        if key != 'name'
    }
    return LayerSensitivity(entry['name'], **parts)
