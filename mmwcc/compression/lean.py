"""Activations that save masks, not feature maps, in front of wavelet compressed layers."""

from __future__ import annotations

from torch import Tensor, nn

from mmwcc.layers import (
    LeanReLU,
    LeanReLU6,
    WaveletCompressedConv2d,
    WaveletCompressedLinear,
)
from mmwcc.model_tree import replace_layers, run_on_zeros

__all__ = ['lean_activations']

_WAVELETS = (WaveletCompressedConv2d, WaveletCompressedLinear)
_LEAN = {nn.ReLU: LeanReLU, nn.ReLU6: LeanReLU6}


def lean_activations(model: nn.Module, input_shape: tuple[int, ...] = (64, 64)) -> list[str]:
    """Let ReLU and ReLU6 save masks for backward if only wavelet compressed layers read them.

    The activations are replaced in place. A dense convolution and the activation before it save the
    same tensor for backward, because the output of one is the input of the other. A wavelet
    compressed layer saves only a fraction of the coefficients, so the activation's output would be
    saved for the activation alone. One run on zeros shows which layers read which activation.
    Outputs and gradients stay the same wherever an activation is used.

    Args:
        model: A compressed model.
        input_shape: Height and width, or channels, height and width, of the zeros. Defaults to
            (64, 64).

    Returns:
        The qualified names of the replaced activations, a shared one under all its names.

    Raises:
        ValueError: If the model cannot run on such an input.

    Example:
        >>> layer = WaveletCompressedConv2d(8, 4, keep_ratio=0.25)
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), layer)
        >>> lean_activations(model)
        ['1']
    """
    readers = _readers(model, input_shape)
    made = {
        module: _LEAN[type(module)](module.inplace).train(module.training)
        for module in readers
        if all(type(reader) in _WAVELETS for reader in readers[module])
    }
    replaced = [
        name for name, module in model.named_modules(remove_duplicate=False) if module in made
    ]
    replace_layers(model, made)
    return replaced


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None and not isinstance(module, nn.Identity)


def _readers(
    model: nn.Module, input_shape: tuple[int, ...]
) -> dict[nn.ReLU | nn.ReLU6, set[nn.Module]]:
    """Return, for each activation, the modules that read its output unchanged."""
    # Holds the tensors, so that no id is reused.
    outputs: dict[int, tuple[Tensor, nn.ReLU | nn.ReLU6]] = {}
    readers: dict[nn.ReLU | nn.ReLU6, set[nn.Module]] = {}

    def write(module, inputs, output) -> None:
        outputs[id(output)] = output, module

    def read(module, inputs) -> None:
        for value in inputs:
            if id(value) in outputs:
                readers.setdefault(outputs[id(value)][1], set()).add(module)

    def watch() -> None:
        for module in model.modules():
            if type(module) in _LEAN and 'forward' not in vars(module):
                module.register_forward_hook(write)
            elif isinstance(module, _WAVELETS) or _is_leaf(module):
                module.register_forward_pre_hook(read)

    run_on_zeros(
        'lean_activations',
        model,
        input_shape,
        watch,
        purpose='show what reads its activations',
        remedy='Give the input_shape of its input, or leave lean_activations out.',
    )
    return readers
