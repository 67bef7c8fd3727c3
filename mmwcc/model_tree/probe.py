"""Running a model once to inspect it, without leaving a trace in it."""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from mmwcc.messages import cause
from mmwcc.progress import Progress
from mmwcc.quantizers import UniformQuantizer

from .guard import guards_off
from .token_grids import Announcement

__all__ = [
    'as_before',
    'example_input',
    'hooks_off',
    'layer_progress',
    'quantizers_off',
    'run_on_image',
    'run_on_zeros',
    'tensor_mode',
    'twin',
    'undisturbed',
]

# Tracing a model also asks for its state_dict.
_HOOKS = '_forward_pre_hooks', '_forward_hooks', '_state_dict_pre_hooks', '_state_dict_hooks'


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
    """Return a copy of a model that shares its parameters and has no hooks of others.

    A run of the copy calls no hook of the user and changes neither buffers nor other attributes of
    the model, such as a counter or a cache. Its modules are those of the model in the same order.

    Raises:
        Exception: Whatever ``copy.deepcopy`` raises if the model cannot be copied.
        TypeError: If the model decides by itself how it is copied, and parts of it are not.
    """
    shared: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    copied = copy.deepcopy(model, shared)
    for original, module in zip_longest(model.modules(), copied.modules()):
        if original is module or type(original) is not type(module):
            raise TypeError(f'copy.deepcopy does not copy its {type(original).__name__}')
    for hooks in _hooks(copied):
        _keep_own(hooks)
    return copied


def _hooks(model: nn.Module) -> Iterator[dict]:
    """Yield what holds the hooks that a run or a trace without gradients calls."""
    for module in model.modules():
        for kind in _HOOKS:
            yield getattr(module, kind)


def _keep_own(hooks: dict) -> None:
    """Remove hooks, except those that compute what the layers of the model need."""
    own = {key: hook for key, hook in hooks.items() if isinstance(hook, Announcement)}
    _put_back(hooks, own)


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
        with _random_state_kept(), torch.no_grad():
            yield
    finally:
        for module, flag in training.items():
            module.training = flag
            for present, before in hooks[module]:
                for added in set(present) - set(before):
                    del present[added]


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Restore the global generators of Python, NumPy and torch, on the CPU and on CUDA."""
    python, numpy = random.getstate(), np.random.get_state(legacy=False)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def as_before(model: nn.Module) -> Iterator[None]:
    """Undo what a block does to the attributes and buffers of ``model``.

    Buffers that were written in place get their values back, and attributes their objects. What
    happens inside other objects, such as an entry that is added to a list, is not undone.
    """
    # Lazy modules become others when they first run, and scripted ones keep their state in C++.
    attributes = {
        module: (dict(vars(module)), dict(module._buffers))
        for module in model.modules()
        if not isinstance(module, (LazyModuleMixin, torch.jit.ScriptModule))
    }
    values = [
        (buffer, buffer.clone())
        for buffer in model.buffers()
        if not is_lazy(buffer) and not buffer.is_meta
    ]
    try:
        yield
    finally:
        for module, (before, buffers) in attributes.items():
            _put_back(vars(module), before)
            _put_back(module._buffers, buffers)
        for buffer, value in values:
            # A buffer that is not written to stays valid for a backward pass that needs it.
            if not torch.equal(buffer, value):
                with torch.no_grad():
                    buffer.copy_(value)


def _put_back(entries: dict[str, Any], before: dict[str, Any]) -> None:
    """Let a dictionary have the entries that it had before."""
    entries.clear()
    entries.update(before)


@contextmanager
def hooks_off(model: nn.Module) -> Iterator[None]:
    """Run ``model`` without calling any of its hooks but those that compute with it."""
    taken = [(hooks, dict(hooks)) for hooks in _hooks(model)]
    for hooks, _ in taken:
        _keep_own(hooks)
    try:
        yield
    finally:
        for hooks, before in taken:
            _put_back(hooks, before)


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
    run_on_image(owner, model, image, watch, purpose=purpose, remedy=remedy, what='zeros')


def run_on_image(
    owner: str,
    model: nn.Module,
    image: Tensor,
    watch: Callable[[], None],
    *,
    purpose: str,
    remedy: str,
    what: str = 'an image',
) -> None:
    """Run ``model`` once on an image, otherwise as :func:`run_on_zeros`.

    Args:
        owner: As in :func:`run_on_zeros`, like model, watch, purpose and remedy.
        image: What the model gets, which may write to it.
        what: What the error message calls the image. Defaults to 'an image'.

    Raises:
        ValueError: If the model cannot run on the image.
    """
    shape = tuple(image.shape)
    try:
        with as_before(model), undisturbed(model), quantizers_off(model):
            watch()
            model(image, **tensor_mode(model))
    except Exception as error:  # the model may raise anything
        raise ValueError(
            f'{owner}: {type(model).__name__} must run on {what} of shape {shape} to {purpose}, '
            f'but {cause(error)}. {remedy}'
        ) from error
