"""The nodes of an ONNX graph with what makes and what reads each value."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ['Graph', 'constants', 'grid_of']


def constants(model) -> dict[str, np.ndarray]:
    """Return the constant values of an ONNX model, by name."""
    found = {tensor.name: _array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == 'Constant' and node.attribute[0].name == 'value':
            found[node.output[0]] = _array(node.attribute[0].t)
        elif node.op_type == 'Identity' and node.input[0] in found:
            # Equal weights are stored once.
            found[node.output[0]] = found[node.input[0]]
    return found


def _array(tensor) -> np.ndarray:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)


class Graph:
    """An ONNX model whose nodes can be followed and changed.

    Args:
        model: The model. :meth:`write` stores the changes in it.

    Attributes:
        constants: The constant values, by name.
    """

    def __init__(self, model) -> None:
        self._model = model
        self.constants = constants(model)
        self._outputs = {output.name for output in model.graph.output}
        # Nodes are found by the first value that they make, for they can be neither hashed nor
        # compared fast.
        self._nodes: dict[str, Any] = {node.output[0]: node for node in model.graph.node}
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._readers: dict[str, dict[str, Any]] = defaultdict(dict)
        for node in self._nodes.values():
            self._read(node)

    def _read(self, node) -> None:
        for name in node.input:
            self._readers[name][node.output[0]] = node

    def of_type(self, *kinds: str) -> Iterator[Any]:
        """Yield the nodes of some types; nodes may be removed meanwhile."""
        for name, node in list(self._nodes.items()):
            if node.op_type in kinds and name in self._nodes:
                yield node

    def maker(self, name: str) -> Any:
        """Return the node that makes a value, or None."""
        return self._makers.get(name)

    def readers(self, node) -> list[Any]:
        """Return the nodes that read the first result of a node."""
        return list(self._readers[node.output[0]].values())

    def is_output(self, node) -> bool:
        """Tell whether the graph returns the first result of a node."""
        return node.output[0] in self._outputs

    def constant(self, node, position: int, default: Any = None) -> Any:
        """Return the constant that a node reads, or the default if it reads nothing there."""
        if len(node.input) <= position or not node.input[position]:
            return default
        return self.constants.get(node.input[position])

    def connect(self, node, position: int, name: str) -> None:
        """Let a node read another value, and remove what nothing reads any more."""
        before = node.input[position]
        node.input[position] = name
        self._read(node)
        if before not in node.input:
            self._readers[before].pop(node.output[0])
            self._remove_unread(before)

    def bypass(self, node, name: str) -> None:
        """Let all nodes that read the first result of a node read another value."""
        for reader in self.readers(node):
            for position, read in enumerate(reader.input):
                if read == node.output[0]:
                    self.connect(reader, position, name)

    def _remove_unread(self, name: str) -> None:
        node = self.maker(name)
        if node is not None and not any(
            self._readers[made] or made in self._outputs for made in node.output
        ):
            self._remove(node)

    def _remove(self, node) -> None:
        del self._nodes[node.output[0]]
        for name in node.output:
            del self._makers[name]
        for name in dict.fromkeys(node.input):
            self._readers[name].pop(node.output[0])
            self._remove_unread(name)

    def add_constant(self, value: np.ndarray, name: str) -> str:
        """Add a constant, unless one has this name, and return the name."""
        from onnx import numpy_helper

        if name not in self.constants:
            self._model.graph.initializer.append(numpy_helper.from_array(value, name))
            self.constants[name] = value
        return name

    def copy(self, node, suffix: str) -> Any:
        """Add a node like another one, whose results have the suffix in their names."""
        made = type(node).FromString(node.SerializeToString())
        made.name = f'{node.name}{suffix}' if node.name else ''
        made.output[:] = [f'{name}{suffix}' for name in node.output]
        self._add(made)
        return made

    def add(self, node) -> None:
        """Add a node, of any domain."""
        from onnx import helper

        if node.domain not in {opset.domain for opset in self._model.opset_import}:
            self._model.opset_import.append(helper.make_opsetid(node.domain, 1))
        self._add(node)

    def replace(self, node, new: list[Any]) -> None:
        """Put nodes in the place of a node; the last of them makes the value of its name."""
        for made in new[:-1]:
            self._add(made)
        readers = self._readers[node.output[0]]
        self._readers[node.output[0]] = {}
        self._remove(node)
        self._add(new[-1])
        self._readers[new[-1].output[0]] = readers

    def _add(self, node) -> None:
        self._nodes[node.output[0]] = node
        self._makers.update(dict.fromkeys(node.output, node))
        self._read(node)

    def write(self) -> None:
        """Store the nodes in the model, without the constants that nothing reads any more."""
        graph = self._model.graph
        copies = [type(node).FromString(node.SerializeToString()) for node in self._ordered()]
        del graph.node[:]
        graph.node.extend(copies)
        read = {name for node in copies for name in node.input} | self._outputs
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        described = [info for info in graph.value_info if info.name in self._makers]
        del graph.value_info[:]
        graph.value_info.extend(described)

    def _ordered(self) -> list[Any]:
        """Return the nodes, each after those that make what it reads."""
        waiting = {
            name: sum(read in self._makers for read in dict.fromkeys(node.input))
            for name, node in self._nodes.items()
        }
        ready = [name for name, number in waiting.items() if not number]
        ordered = []
        for name in ready:  # which grows
            node = self._nodes[name]
            ordered.append(node)
            for made in node.output:
                for reader in self._readers[made]:
                    waiting[reader] -= 1
                    if not waiting[reader]:
                        ready.append(reader)
        return ordered


def grid_of(graph: Graph, node) -> tuple[float, int, np.dtype] | None:
    """Return scale, zero point and type of a QuantizeLinear, or of the DequantizeLinear behind."""
    quantize = node if node.op_type == 'QuantizeLinear' else graph.maker(node.input[0])
    if quantize is None or quantize.op_type != 'QuantizeLinear':
        return None
    scale, zero = graph.constant(node, 1), graph.constant(quantize, 2, np.uint8(0))
    point = graph.constant(node, 2, zero.dtype.type(0)) if zero is not None else None
    if scale is None or scale.size != 1 or point is None:
        return None
    return float(scale.item()), int(point.item()), zero.dtype
