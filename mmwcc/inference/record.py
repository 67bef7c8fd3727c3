"""Integer networks as flat lists of operators, without the Python code of their layers."""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from .quantized_map import dequantized

__all__ = ['RecordedNetwork', 'record']


class RecordedNetwork:
    """The operators that a network ran on an example, one after the other, for inference.

    It holds the weights of the network as they were. It can be neither copied nor saved: record the
    network again.

    Args:
        operators: Runs the operators on an input.
        example: The input that they were recorded with.
    """

    def __init__(self, operators: Callable[[Tensor], Any], example: Tensor) -> None:
        self._operators = operators
        self._shape, self._stride, self._dtype = example.shape, example.stride(), example.dtype

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Any:
        """Return what the network returns.

        Args:
            x: An input of the shape and dtype of the example.

        Raises:
            ValueError: If the input has another shape or dtype.
        """
        if x.shape != self._shape or x.dtype != self._dtype:
            raise ValueError(
                f'RecordedNetwork: the input must be of shape {tuple(self._shape)} and '
                f'{self._dtype}, like the example, got {tuple(x.shape)} and {x.dtype}. Record the '
                'network with an input of this kind.'
            )
        if x.stride() != self._stride:
            x = x.new_empty_strided(self._shape, self._stride).copy_(x)
        return self._operators(x)

    def __reduce__(self) -> Any:
        raise TypeError(
            'RecordedNetwork: a recording can be neither copied nor saved, because it holds '
            'weights in a layout of this processor. Save the network, and record it again.'
        )


class _Recorder(TorchDispatchMode):
    """Write down each operator that runs, as a node of a graph.

    Args:
        example: The input of the graph.
    """

    def __init__(self, example: Tensor) -> None:
        super().__init__()
        self.graph, self.constants = fx.Graph(), nn.Module()
        self._nodes = {id(example): self.graph.placeholder('x')}
        self._seen: list[Any] = []  # alive until the end, so that no other tensor gets their ids

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        inputs = tree_map(self.node, (args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        node = self.graph.call_function(func, *inputs)
        self._seen.append(result)
        if isinstance(result, Tensor):
            self._nodes[id(result)] = node
            return result
        for index, part in enumerate(tree_leaves(result)):
            self._nodes[id(part)] = self.graph.call_function(getitem, (node, index))
        return result

    def node(self, value: Any) -> Any:
        """Return the node of a tensor, a constant one if no operator has made it."""
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self._nodes:
            name = f'constant_{len(self._seen)}_{len(self._nodes)}'
            setattr(self.constants, name, value)
            self._nodes[id(value)] = self.graph.get_attr(name)
            self._seen.append(value)
        return self._nodes[id(value)]

    def operators(self, result: Any) -> fx.GraphModule:
        """Return what runs all operators and returns what stands for ``result``."""
        self.graph.output(tree_map(self.node, result))
        return fx.GraphModule(self.constants, self.graph)


@torch.inference_mode()
def record(network: nn.Module, example: Tensor) -> RecordedNetwork:
    """Run a network on an example and write down its operators.

    Between two convolutions of an integer network, the Python code of layers, hooks and maps takes
    as long as many of the convolutions. A recording leaves out this code and returns the same
    values, bit for bit.

    Args:
        network: A network for inference, such as one that :func:`mmwcc.inference.to_integer` has
            converted. Later changes of it do not reach the recording.
        example: An input. Inputs of another shape need a recording of their own.

    Returns:
        The recording.

    Raises:
        RuntimeError: If the network is in training mode.

    Note:
        What the code decides from the values of its maps, it decides for the example once and for
        all, as with ``torch.jit.trace``.

    Example:
        >>> recorded = record(nn.Conv2d(3, 4, 1).eval(), torch.ones(1, 3, 2, 2))
        >>> recorded(torch.zeros(1, 3, 2, 2)).shape
        torch.Size([1, 4, 2, 2])
    """
    if network.training:
        raise RuntimeError(
            'record: the network must be in evaluation mode, got one in training mode. Call '
            'network.eval() first.'
        )
    network(example)  # so that layers have made their constants
    with _Recorder(example) as recorder:
        result = dequantized(network(example))
    return RecordedNetwork(recorder.operators(result), example)
