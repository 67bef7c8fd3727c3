"""Integer networks as flat lists of operators, without the Python code of their layers."""

from __future__ import annotations

import time
from collections import defaultdict
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mmwcc.maps import tensors_in

from .patterns import PATTERNS
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

    def __init__(self, operators: fx.GraphModule, example: Tensor) -> None:
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
        return self._operators(self._like_example(x))

    @torch.inference_mode()
    def float_shares(self, x: Tensor, repeats: int = 5) -> dict[str, float]:
        """Time the operators one by one, and return what floating point takes.

        Args:
            x: As for a call.
            repeats: Number of runs. Defaults to 5.

        Returns:
            The share of the whole time, from 0 to 1, of each kind of operator that computes on
            float maps. The largest comes first.
        """
        stopwatch = _Stopwatch(self._operators)
        x = self._like_example(x)
        stopwatch.run(x)  # the first call prepares memory and caches
        stopwatch.times.clear()
        for _ in range(repeats):
            stopwatch.run(x)
        total = sum(stopwatch.times.values())
        return {
            name: seconds / total
            for (name, integers), seconds in sorted(
                stopwatch.times.items(), key=lambda item: item[1], reverse=True
            )
            if not integers
        }

    def _like_example(self, x: Tensor) -> Tensor:
        if x.shape != self._shape or x.dtype != self._dtype:
            raise ValueError(
                f'RecordedNetwork: the input must be of shape {tuple(self._shape)} and '
                f'{self._dtype}, like the example, got {tuple(x.shape)} and {x.dtype}. Record the '
                'network with an input of this kind.'
            )
        if x.stride() != self._stride:
            x = x.new_empty_strided(self._shape, self._stride).copy_(x)
        return x

    def __reduce__(self) -> Any:
        raise TypeError(
            'RecordedNetwork: a recording can be neither copied nor saved, because it holds '
            'weights in a layout of this processor. Save the network, and record it again.'
        )


class _Stopwatch(fx.Interpreter):
    """Add up the times of operators, by name and by whether they compute on integer maps."""

    def __init__(self, operators: fx.GraphModule) -> None:
        super().__init__(operators)
        self.times: dict[tuple[str, bool], float] = defaultdict(float)

    def call_function(self, target: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        start = time.perf_counter()
        result = super().call_function(target, args, kwargs)
        elapsed = time.perf_counter() - start
        bytes_in = any(x.dtype == torch.uint8 for x in tensors_in([args, kwargs]))
        name = getattr(target, 'overloadpacket', target).__name__
        bytes_out = any(x.dtype == torch.uint8 for x in tensors_in(result))
        self.times[name, bytes_in or bytes_out] += elapsed
        return result


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
        for combine in PATTERNS:
            combine(self.graph)
        return fx.GraphModule(self.constants, self.graph)


@torch.inference_mode()
def record(network: nn.Module, example: Tensor) -> RecordedNetwork:
    """Run a network on an example and write down its operators.

    Between two convolutions of an integer network, the Python code of layers, hooks and maps takes
    as long as many of the convolutions. A recording leaves out this code and returns the same
    values, bit for bit. Only where the network resizes contiguous float maps, as segmentors do with
    logits, the last bits may differ.

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
