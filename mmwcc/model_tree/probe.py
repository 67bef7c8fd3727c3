"""Running a model once to inspect it, without leaving a trace in it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmwcc.messages import cause
from mmwcc.progress import Progress
from mmwcc.quantizers import UniformQuantizer

from .guard import guards_off

__all__ = [
    'example_input',
    'layer_progress',
    'quantizers_off',
    'run_on_zeros',
    'tensor_mode',
    'twin',
    'undisturbed',
]


def example_input(model: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    """Return a batch with one image of zeros, on the device and in the dtype of the model.

    Args:
        model: The model that will run on it.
        input_shape: Height and width, in which case the image has as many channels as the first
            convolution takes; or the shape of one input.

    Raises:
        ValueError: If the number of channels is needed and there is no convolution to read it from.
    """
    if len(input_shape) == 2:
        first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
        if first is None:
            raise ValueError(
                f'{type(model).__name__} has no convolution that tells the channels of an input of '
                f'size {tuple(input_shape)}. Give the whole shape, (channels, height, width).'
            )
        input_shape = (first.in_channels, *input_shape)
    parameter = next(model.parameters(), torch.empty(()))
    return torch.zeros((1, *input_shape), dtype=parameter.dtype, device=parameter.device)


def tensor_mode(model: nn.Module) -> dict[str, str]:
    """Return the keyword that asks models of mmengine for plain tensors; empty for other models."""
    return dict(mode='tensor') if 'mode' in inspect.signature(model.forward).parameters else {}


def twin(model: nn.Module) -> nn.Module:
    """Return a copy of a model that shares its parameters and buffers and has no forward hooks.

    A run of the copy calls no hook of the user and changes no attribute of the model, such as a
    counter or a cache. Its modules are those of the model in the same order.
    """
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    copied = copy.deepcopy(model, shared)
    for module in copied.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return copied


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run ``model`` in eval mode without gradients, then restore its flags, hooks and random state.

    Hooks that the block inside registers are removed.
    """
    # The flags are set directly, because OpenMMLab's networks override model.train().
    training = {module: module.training for module in model.modules()}
    hooks = {
        module: [
            (hooks, list(hooks)) for hooks in (module._forward_pre_hooks, module._forward_hooks)
        ]
        for module in training
    }
    try:
        for module in training:
            module.training = False
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        for module, flag in training.items():
            module.training = flag
            for present, before in hooks[module]:
                for added in set(present) - set(before):
                    del present[added]


@contextmanager
def layer_progress(model: nn.Module, what: str) -> Iterator[None]:
    """Say how many layers have run, while ``model`` runs once inside the block.

    Args:
        model: Any module. The hooks that count are removed afterwards.
        what: What is done. Each line begins with it.
    """
    waiting = {
        module
        for module in model.modules()
        if module._parameters and not isinstance(module, UniformQuantizer)
    }
    progress = Progress(what, len(waiting), 'layers')

    def count(module: nn.Module, inputs: tuple, output: object) -> None:
        if module in waiting:
            waiting.remove(module)
            progress.step()

    handles = [module.register_forward_hook(count) for module in waiting]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        progress.end()


@contextmanager
def quantizers_off(model: nn.Module) -> Iterator[None]:
    """Run ``model`` without quantization.

    Shapes stay the same, no quantizer calibrates, and neither quantizers nor guards complain.
    """
    bits = {
        module: module.bits for module in model.modules() if isinstance(module, UniformQuantizer)
    }
    try:
        for quantizer in bits:
            quantizer.bits = 32
        with guards_off(model):
            yield
    finally:
        for quantizer, width in bits.items():
            quantizer.bits = width


def run_on_zeros(
    owner: str,
    model: nn.Module,
    input_shape: tuple[int, ...],
    watch: Callable[[], None],
    *,
    purpose: str,
    remedy: str,
) -> None:
    """Run ``model`` once on zeros with the hooks that ``watch`` registers, and leave no trace.

    Args:
        owner: Name that starts the error message.
        model: Any module that takes one batch of images. Models of mmengine run in mode 'tensor'.
        input_shape: As in :func:`example_input`.
        watch: Registers hooks on modules of the model. They are removed afterwards.
        purpose: What the run is for. The error message puts it after 'to'.
        remedy: What the user can do, in whole sentences. It ends the error message.

    Raises:
        ValueError: If the model cannot run on such an input.
    """
    image = example_input(model, input_shape)
    try:
        with undisturbed(model), quantizers_off(model):
            watch()
            model(image, **tensor_mode(model))
    except Exception as error:  # the model may raise anything
        raise ValueError(
            f'{owner}: {type(model).__name__} must run on zeros of shape {tuple(image.shape)} to '
            f'{purpose}, but {cause(error)}. {remedy}'
        ) from error
