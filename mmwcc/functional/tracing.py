"""Behaviour of layers when ``torch.fx`` traces them symbolically."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn
from torch.fx import Proxy

__all__ = ['one_call']


def one_call(forward: Callable) -> Callable:
    """Make a module with this ``forward`` appear in a traced graph as one call of the module.

    ``torch.fx.symbolic_trace`` looks into every module that is not one of torch's own. Our modules
    branch on values (calibration, the memory format), which a traced graph does not have.

    Args:
        forward: A ``forward`` that takes one tensor.

    Returns:
        The same function, except that a traced input becomes a call of the module.

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
    def run(self, input):  # torch's name, which callers may use as a keyword
        return _call(self, input) if isinstance(input, Proxy) else forward(self, input)

    return run


def _call(module: nn.Module, x: Proxy) -> Proxy:
    tracer: Any = x.tracer  # a Tracer, which has a root; Proxy declares its base class
    if tracer.root is module:
        name = type(module).__name__
        raise TypeError(
            f'{name}: torch.fx can trace a model that contains this layer, got the layer '
            'itself. Put it into torch.nn.Sequential.'
        )
    return tracer.create_proxy('call_module', tracer.path_of_module(module), (x,), {})
