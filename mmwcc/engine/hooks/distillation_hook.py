"""Distillation: train a compressed network towards the output of a dense one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.runner import load_checkpoint
from torch import Tensor, nn
from torch.nn import functional as F

from mmwcc.compressed_config import is_compressed, without_compression
from mmwcc.model_tree import convolutions, named_layers, prediction_layers, unwrapped
from mmwcc.registry import HOOKS

from .random_state_hook import get_random_state, set_random_state

__all__ = ['DistillationHook', 'pixelwise_kl', 'relative_error']


def pixelwise_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the divergence of the student's class probabilities from the teacher's.

    Args:
        student: Logits with classes in dimension 1, in any floating-point dtype.
        teacher: Logits of the same shape.
        temperature: Divides both logits. The result is multiplied by the square of the temperature,
            so that gradients keep their size. Defaults to 1.0.

    Shape:
        (B, C, ...) for both.

    Returns:
        The mean over images and pixels, a float32 scalar.

    Example:
        >>> f'{pixelwise_kl(torch.zeros(1, 2), torch.tensor([[0.75, 0.25]]).log()).item():.4f}'
        '0.1308'

    Reference:
        Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015, section 2.
    """
    ours, theirs = ((logits.float() / temperature).log_softmax(1) for logits in (student, teacher))
    return F.kl_div(ours, theirs, reduction='none', log_target=True).sum(1).mean() * temperature**2


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared error of feature maps relative to the energy of the teacher's maps.

    The result is a float32 scalar.
    """
    energy = teacher.float().square().mean().clamp_min(torch.finfo(torch.float32).tiny)
    return (student.float() - teacher.float()).square().mean() / energy


@HOOKS.register_module()
class DistillationHook(Hook):
    """Add to the losses of a model the distance of its output from that of a dense network.

    The teacher sees the same batches, in evaluation mode and without gradients. It is not part of
    the model: parameters, checkpoints, EMA and DDP do not include it, and a resumed run loads it
    again. Forward hooks on the model add ``distillation.loss_kl`` and
    ``distillation.loss_features`` to the losses that it returns in mode 'loss'. These hooks stay
    from the start of training to its end.

    The hook compares the outputs of layers that have the same name in both networks, before any
    resizing or loss.

    Args:
        checkpoint: Checkpoint of the teacher, which must fit it exactly.
        model: Config of the teacher. Defaults to None: the model in training, without its
            compression.
        logits: Name of the layer that returns the logits, with classes in dimension 1. Defaults to
            None: the prediction layer of the model, ignoring auxiliary heads.
        weight: Factor of :func:`pixelwise_kl`. Defaults to 1.0.
        temperature: Temperature of :func:`pixelwise_kl`. Defaults to 1.0.
        features: Names of further layers, each with the factor of its :func:`relative_error`.
            Defaults to None: no further layers.

    Raises:
        TypeError: If checkpoint is not a string or features is not a dict.
        ValueError: If weight, temperature or a factor of features is not positive.
        ValueError: At the start of training, if the teacher is compressed, or a layer cannot be
            found or is missing in one of the networks.
        RuntimeError: At the start of training, if the checkpoint does not fit.
        RuntimeError: During training, if a layer does not run equally often in both networks.

    Note:
        Every iteration costs one forward pass of the teacher. A program that calls mmengine's
        ``model.loss(...)`` instead of the model bypasses the hooks.

    Example:
        >>> distillation = dict(type='mmwcc.DistillationHook', checkpoint='dense.pth')
        >>> default_hooks = dict(distillation=distillation)

    Reference:
        Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015.
    """

    def __init__(
        self,
        checkpoint: str,
        model: dict | None = None,
        logits: str | None = None,
        weight: float = 1.0,
        temperature: float = 1.0,
        features: dict[str, float] | None = None,
    ) -> None:
        if not isinstance(checkpoint, str):
            raise TypeError(
                f'DistillationHook: checkpoint must be a path, got {checkpoint!r}. Name the '
                'checkpoint of the dense network.'
            )
        if not isinstance(features or {}, Mapping):
            raise TypeError(
                f'DistillationHook: features must be a dict of names and factors, got '
                f'{features!r}. Did '
                "you mean {'backbone.layer7': 0.1}?"
            )
        for name, value in dict(weight=weight, temperature=temperature, **(features or {})).items():
            if not value > 0:
                raise ValueError(
                    f'DistillationHook: {name} must be positive, got {value}. Leave the hook or '
                    'the entry out for no distillation.'
                )
        self.checkpoint, self.teacher_config, self.logits = checkpoint, model, logits
        self.weight, self.temperature, self.features = weight, temperature, dict(features or {})
        self.teacher: nn.Module | None = None
        self._handles: list = []

    def before_train(self, runner) -> None:
        """Build and load the teacher, and attach it to the model."""
        model = unwrapped(runner.model)
        state = get_random_state()  # building a network changes it
        try:
            self.teacher = self._build(runner.cfg.model).to(next(model.parameters()).device)
        finally:
            set_random_state(state)
        names = [self.logits or _prediction_layer(model), *self.features]
        layers = [
            _find(network, whose, names)
            for network, whose in ((model, 'model'), (self.teacher, 'teacher'))
        ]
        self._attach(model, *layers)
        runner.logger.info(f'DistillationHook: {", ".join(names)} learn from {self.checkpoint}')

    def after_train(self, runner) -> None:
        """Detach the teacher from the model."""
        for handle in self._handles:
            handle.remove()
        self._handles, self.teacher = [], None

    def _build(self, config: Mapping[str, Any]) -> nn.Module:
        settings = dict(self.teacher_config or config)
        if self.teacher_config and is_compressed(settings):
            raise ValueError(
                'DistillationHook: model must be the config of a dense network, got a compressed '
                'one. Leave it out to take the model that trains without its compression.'
            )
        teacher = revert_sync_batchnorm(ROOT_MODELS.build(without_compression(settings)))
        try:
            load_checkpoint(
                teacher, self.checkpoint, map_location='cpu', strict=True, logger='silent'
            )
        except RuntimeError as error:
            raise RuntimeError(
                f'DistillationHook: checkpoint must fit the dense network exactly, got '
                f'{self.checkpoint}: {error}'
            ) from error
        return teacher.eval().requires_grad_(False)

    def _attach(
        self, model: nn.Module, ours: dict[str, nn.Module], theirs: dict[str, nn.Module]
    ) -> None:
        """Add forward hooks to a model. Copies of it share these functions, not the teacher."""
        seen: dict[str, list[Tensor]] = {}
        answers: dict[str, list[Tensor]] = {}

        def begin(model: nn.Module, args: tuple, kwargs: dict) -> None:
            if _mode(args, kwargs) == 'loss':
                seen.update({name: [] for name in ours})

        def end(model: nn.Module, args: tuple, kwargs: dict, losses: dict) -> dict | None:
            if _mode(args, kwargs) != 'loss':
                return None
            answers.update({name: [] for name in theirs})
            assert self.teacher is not None, 'it goes when these functions are removed'
            with torch.no_grad():
                self.teacher(*(args[:2] if len(args) > 2 else args), **{**kwargs, 'mode': 'tensor'})
            added = self._losses(seen, answers)
            seen.clear()
            answers.clear()
            return {**losses, **added}

        self._handles = [
            model.register_forward_pre_hook(begin, with_kwargs=True),
            model.register_forward_hook(end, with_kwargs=True),
            *_listen(ours, seen),
            *_listen(theirs, answers),
        ]

    def _losses(
        self, ours: dict[str, list[Tensor]], theirs: dict[str, list[Tensor]]
    ) -> dict[str, Tensor]:
        for name in ours:
            shapes = [
                [tuple(output.shape) for output in outputs]
                for outputs in (ours[name], theirs[name])
            ]
            if not ours[name] or shapes[0] != shapes[1]:
                raise RuntimeError(
                    f'DistillationHook: {name} must return the same shapes in model and teacher, '
                    f'got {shapes[0]} and {shapes[1]}. Name a layer that both run in a training '
                    f'step.'
                )
        pairs = {
            name: list(zip(outputs, theirs[name], strict=True)) for name, outputs in ours.items()
        }
        logits, *features = pairs
        losses: dict[str, Any] = {
            'distillation.loss_kl': self.weight
            * sum(pixelwise_kl(*pair, self.temperature) for pair in pairs[logits])
            / len(pairs[logits])
        }
        if features:
            losses['distillation.loss_features'] = sum(
                self.features[name] * relative_error(*pair) / len(pairs[name])
                for name in features
                for pair in pairs[name]
            )
        return losses


def _listen(layers: dict[str, nn.Module], seen: dict[str, list[Tensor]]) -> list:
    """Let layers record their outputs while ``seen`` has an entry for them."""

    def note(name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
        return lambda layer, args, output: seen[name].append(output) if name in seen else None

    return [layer.register_forward_hook(note(name)) for name, layer in layers.items()]


def _mode(args: tuple, kwargs: dict) -> str | None:
    """Return the mode in which a model of mmengine is called, its third argument."""
    return kwargs.get('mode', args[2] if len(args) > 2 else None)


def _prediction_layer(model: nn.Module) -> str:
    last = list(convolutions('DistillationHook', model))[-1]
    predicting = prediction_layers(model) or {last}
    found = [
        name for name, _ in model.named_modules() if name in predicting and 'auxiliary' not in name
    ]
    if len(found) != 1:
        raise ValueError(
            f'DistillationHook: logits must name one layer of a model with {len(found)} prediction '
            f'layers ({", ".join(found)}). Use logits={(found or ["decode_head.conv_seg"])[0]!r}.'
        )
    return found[0]


def _find(network: nn.Module, whose: str, names: list[str]) -> dict[str, nn.Module]:
    modules = named_layers(network, nn.Module)
    for name in names:
        if name not in modules:
            raise ValueError(
                f'DistillationHook: logits and features must name layers of model and teacher, got '
                f'{name!r}, which the {whose} does not have. Use names of model.named_modules().'
            )
    return {name: modules[name] for name in names}
