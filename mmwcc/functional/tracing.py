"""What layers do when ``torch.fx`` traces them symbolically."""
from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn
from torch.fx import Proxy

__all__ = ['one_call']


def one_call(forward: Callable) -> Callable:
    """Let a module with this ``forward`` stand in a traced graph as one call of itself.

    ``torch.fx.symbolic_trace`` looks into every module that is not torch's own. What it would find
    in ours depends on values (calibration, the memory format), which a traced graph does not have.

    Args:
        forward: A ``forward`` that takes one tensor.

    Returns:
        The same, with that exception.

    Example:
        >>> class Absolute(nn.Module):
        ...     @one_call
        ...     def forward(self, x):
        ...         return x if x.min() >= 0 else x.abs()
        >>> traced = torch.fx.symbolic_trace(nn.Sequential(Absolute()))
        >>> traced(torch.tensor([-2.0]))
        tensor([2.])
    """

    @wraps(forward)
    def run(self, input):  # torch's name for it, by which layers are called too
        return _call(self, input) if isinstance(input, Proxy) else forward(self, input)

    return run


def _call(module: nn.Module, x: Proxy) -> Proxy:
    tracer: Any = x.tracer  # a Tracer, which has a root; the annotation of Proxy names its base
    if tracer.root is module:
        name = type(module).__name__
        raise TypeError(f'{name}: torch.fx can trace a model that contains this layer, got the layer '
                        'itself. Put it into torch.nn.Sequential.')
    return tracer.create_proxy('call_module', tracer.path_of_module(module), (x, ), {})
