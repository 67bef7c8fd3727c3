"""Find out what a config says about a model without data: its layers, compression and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mmwcc.compressed_config import is_compressed
from mmwcc.compression import QUANTITIES, compress_model
from mmwcc.cost import CostReport, LayerCost, count_cost
from mmwcc.model_tree import CompressionReport, describe_layer, named_layers, unhandled_layers
from mmwcc.progress import track
from mmwcc.utils import build_model, dense_config, quiet

from .image_sizes import input_size
from .work_dirs import WorkDir

__all__ = [
    'Basis',
    'ModelFacts',
    'build_with_report',
    'examine',
    'examine_all',
]


@dataclass(frozen=True)
class Basis:
    """What the cost of a model was counted for; only costs of one basis can be compared.

    Attributes:
        convention: 'exact' or 'paper'.
        size: Height and width of one image.
    """

    convention: str
    size: tuple[int, int]

    @classmethod
    def of(cls, convention: str | None, input_shape: Sequence[int] | None) -> Basis | None:
        """Return the basis of a count, or None if it is not on record."""
        if not convention or not input_shape or len(input_shape) < 2:
            return None
        return cls(convention, (input_shape[-2], input_shape[-1]))

    def __str__(self) -> str:
        by_paper = " by the paper's convention" if self.convention == 'paper' else ''
        return f'{self.size[0]}x{self.size[1]}{by_paper}'


@dataclass
class ModelFacts:
    """What :func:`examine` found.

    Attributes:
        layers: How every convolution is compressed, according to the checkpoint or, without one, to
            the built model.
        cost: The cost of the model, or None if it could not be counted.
        recorded: What mmwcc.CostHook wrote into the latest checkpoint, empty without it.
        notes: What could not be found out, in full sentences.
    """

    layers: CompressionReport = field(default_factory=CompressionReport)
    cost: CostReport | None = None
    recorded: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> dict[str, float]:
        """The cost of the whole model, under the names of CostSum.

        It is the counted cost if there is one, otherwise the recorded one, and empty if neither is
        known.
        """
        return self.cost.total.to_dict() if self.cost else self.recorded.get('total', {})

    @property
    def basis(self) -> Basis | None:
        """What :attr:`total` was counted for, or None if that is not known."""
        if self.cost:
            return Basis.of(self.cost.convention, self.cost.input_shape)
        return Basis.of(self.recorded.get('convention'), self.recorded.get('input_shape'))

    @property
    def layer_costs(self) -> dict[str, LayerCost]:
        """The cost of each layer by name."""
        return {layer.name: layer for layer in self.cost.layers} if self.cost else {}


def build_with_report(config: Config) -> tuple[nn.Module, CompressionReport]:
    """Build the model of a config, without weights, and report on its layers.

    Args:
        config: A config with a ``model``, dense or compressed.

    Returns:
        The model, and the report, which says why layers stay dense.

    Raises:
        LaunchError: If the config has no ``model``.
        KeyError: If the model is not registered.
        ValueError: If the compression does not fit the model.
    """
    with DefaultScope.overwrite_default_scope(config.get('default_scope', 'mmengine')):
        # Build it as the factory does, but keep the report.
        if is_compressed(config.get('model', {})):
            dense, compression = dense_config(config)
            model = build_model(dense)
            return model, compress_model(model, compression, verbose=False)
        model = build_model(config)
        layers = (
            describe_layer(name, module) for name, module in named_layers(model, nn.Conv2d).items()
        )
        return model, CompressionReport(layers, unhandled_layers(model))


def examine(work_dir: WorkDir, shape: Sequence[int] | None = None) -> ModelFacts:
    """Build the model of a work folder and determine its layers and their cost.

    A schedule changes bits and keep ratios during training, so the values recorded in the latest
    checkpoint are used. To compare several models, use :func:`examine_all`.

    Args:
        work_dir: What :func:`mmwcc.reports.work_dirs.read_work_dir` returned.
        shape: (height, width) of the input for which the cost is counted. Defaults to None: the
            shape that mmwcc.CostHook recorded, otherwise :func:`input_size`.

    Returns:
        The facts. A failure becomes a note, because one model should not end a report on several.
    """
    return examine_all([work_dir], shape)[0]


def examine_all(
    work_dirs: Sequence[WorkDir], shape: Sequence[int] | None = None, *, verbose: bool = False
) -> list[ModelFacts]:
    """Examine several models, and count the cost of all of them for images of one size.

    Args:
        work_dirs: What :func:`mmwcc.reports.work_dirs.read_work_dir` returned for each.
        shape: (height, width) of the input. Defaults to None: the size and the convention of the
            first model for which a size is known.
        verbose: Whether to say on stderr how many models are examined already. Defaults to False.

    Returns:
        The facts as :func:`examine` returns them. A model that cannot be counted at this size has
        no cost, and a note that names the sizes.
    """
    own = [_own_basis(work_dir) for work_dir in work_dirs]
    common = next((basis for basis in own if basis), None)
    if shape is not None:
        common = Basis('exact', (shape[-2], shape[-1]))
    facts = []
    models = track(work_dirs, 'examining', 'models', verbose=verbose)
    for work_dir, basis in zip(models, own, strict=True):
        facts.append(_examine(work_dir, common))
        # A size that was asked for needs no explanation.
        if shape is None and basis is not None and basis != common:
            facts[-1].notes.append(
                f'The model has its cost on record, or is tested, for images of {basis}. It is '
                f'counted for images of {common} like the others.'
            )
    return facts


def _examine(work_dir: WorkDir, basis: Basis | None) -> ModelFacts:
    facts = ModelFacts(recorded=work_dir.stamp.get('cost') or {})
    if basis is not None and facts.basis != basis:
        # What was counted for other images cannot be compared.
        facts.recorded = {}
    try:
        with quiet():
            model, report = build_with_report(work_dir.config)
    except Exception as error:  # building a model of any project may raise anything
        facts.notes.append(
            f'The model could not be built from its config ({type(error).__name__}: {error}), so '
            f'its layers{"" if facts.recorded else " and its cost"} are not known.'
        )
        return facts
    states = {
        name: {key: state[key] for key in QUANTITIES if key in state}
        for name, state in work_dir.stamp.get('layers', {}).items()
    }
    facts.layers = report.updated(states)
    if basis is None:
        facts.notes.append(
            'The config names no size of input images, so the cost was not counted. Give --shape.'
        )
        return facts
    shape = tuple(facts.recorded.get('input_shape') or ())[1:] or basis.size
    try:
        counted = count_cost(model, shape, convention=basis.convention)
        known = {layer.name for layer in counted.layers}
        facts.cost = counted.at({name: state for name, state in states.items() if name in known})
    except (ValueError, TypeError) as error:
        facts.notes.append(f'The cost could not be counted for images of {basis}: {error}')
    return facts


def _own_basis(work_dir: WorkDir) -> Basis | None:
    """Return the size and convention on record for a model, or else the size of its test images."""
    recorded = ModelFacts(recorded=work_dir.stamp.get('cost') or {}).basis
    size = input_size(work_dir.config)
    return recorded or (Basis('exact', size) if size else None)
