"""Counting with mmengine's complexity analysis: handlers for mmwcc's operators, and running it.

:mod:`mmwcc.compat` passes ``HANDLERS`` to mmengine, so that ``get_model_complexity_info`` and the
tools built on it also count compressed layers. A handler gets the inputs and outputs of an operator
as values of the traced graph.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from mmwcc.kernels import COSTS, Cost
from mmwcc.model_tree import as_before, tensor_mode, undisturbed
from mmwcc.quantizers import UniformQuantizer
from mmwcc.requirements import require

from .formulas import transform_operations

__all__ = ['HANDLERS', 'PRODUCTS', 'Operations', 'analyze', 'tensors_in']

PRODUCTS = (
    'addmm',
    'baddbmm',
    'bmm',
    'conv',
    'einsum',
    'linear',
    'matmul',
    'mm',
    'quantized_product',
    'int8_linear',
    'scaled_dot_product_attention',
)
"""mmengine's names for operators that multiply and accumulate; the others work elementwise."""


def _shape(value) -> list[int]:
    return value.type().sizes()


def _value(value):
    """Return an argument as a cost rule gets it: the shape of a tensor, or a constant."""
    return _shape(value) if isinstance(value.type(), torch._C.TensorType) else value.toIValue()


def _by_rule(rule: Callable[..., Cost], inputs: list, outputs: list) -> Counter:
    """Count a call of an operator by the cost rule registered with the operator."""
    cost = rule(*map(_value, inputs))
    counts: Counter[str] = Counter()
    if cost.product:
        counts[cost.product] = cost.macs
    if cost.transform:
        channels, positions, levels = cost.transform
        counts['haar'] = int(transform_operations(channels, positions, levels=levels))
    return counts


def _quantized_product(inputs, outputs) -> Counter:
    return Counter(quantized_product=prod(_shape(outputs[0])) * prod(_shape(inputs[1])[1:]))


HANDLERS: dict[str, Callable[[list, list], Counter]] = {
    'prim::PythonOp._QuantizedProduct': _quantized_product,
    **{f'mmwcc::{name}': partial(_by_rule, rule) for name, rule in COSTS.items()},
}


def _attention(inputs, outputs) -> Counter:
    query, key, value = map(_shape, inputs[:3])
    return Counter(
        scaled_dot_product_attention=prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    )


def _baddbmm(inputs, outputs) -> Counter:
    """Count the product of attention with a mask, which ``nn.MultiheadAttention`` adds."""
    left, right = map(_shape, inputs[1:3])
    return Counter(baddbmm=prod(left) * right[-1])


@dataclass(frozen=True)
class Operations:
    """The operations in one run of a model.

    Attributes:
        counts: Operations by module name and operator, for the module that called the operator.
        uncounted: Calls of operators without a rule, arranged in the same way.
        uncalled: Names of containers that were not called and in which nothing was called.
    """

    counts: dict[str, Counter]
    uncounted: dict[str, Counter]
    uncalled: tuple[str, ...]


class _Traced(nn.Module):
    """Call a model with any inputs and return its output tensors; a trace can hold only tensors.

    Args:
        model: The model.
        inputs: As in :func:`analyze`.

    Attributes:
        tensors: The inputs that consist of tensors, for :meth:`forward`. The others, such as
            data samples, are kept.
    """

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        super().__init__()
        self.model = model
        self._by_name = isinstance(inputs, Mapping)
        if not self._by_name:
            inputs = dict(enumerate(inputs if isinstance(inputs, tuple) else (inputs,)))
        self._inputs = dict(inputs)
        # Inputs may name another mode than the one that returns plain tensors.
        self._mode = {} if 'mode' in inputs else tensor_mode(model)
        self._traced = [key for key, value in inputs.items() if _is_traceable(value)]
        self.tensors = tuple(inputs[key] for key in self._traced)

    def forward(self, tensors):
        inputs = {**self._inputs, **dict(zip(self._traced, tensors, strict=True))}
        if self._by_name:
            return tuple(tensors_in(self.model(**inputs, **self._mode)))
        return tuple(tensors_in(self.model(*inputs.values(), **self._mode)))


def _is_traceable(value: Any) -> bool:
    """Tell whether a value consists of tensors alone."""
    if isinstance(value, Mapping):
        return all(map(_is_traceable, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_traceable, value))
    return isinstance(value, Tensor)


def tensors_in(output: Any) -> Iterable[Tensor]:
    """Yield the tensors in nested containers and dataclasses."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for item in output.values():
            yield from tensors_in(item)
    elif isinstance(output, (list, tuple)):
        for item in output:
            yield from tensors_in(item)
    elif is_dataclass(output):
        for entry in fields(output):
            yield from tensors_in(getattr(output, entry.name))


def _copied(value: Any) -> Any:
    """Return inputs that a run may write to, because nobody else has them.

    Objects that cannot be copied are passed on.

    Raises:
        TypeError: If there is an iterator among them, because a run would use it up.
    """
    if isinstance(value, Iterator):
        raise TypeError(
            f'{type(value).__name__} is an iterator, which counting would use up. Give a list'
        )
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        entries = copy.copy(value)  # of the same class
        entries.update({key: _copied(item) for key, item in value.items()})
        return entries
    if isinstance(value, (list, tuple)):
        kind = type(value)
        return getattr(kind, '_make', kind)(map(_copied, value))
    try:
        return copy.deepcopy(value, {id(one): one.detach().clone() for one in tensors_in(value)})
    except Exception:  # an object may refuse in any way
        return value


def analyze(model: nn.Module, inputs: Any, record: Mapping[nn.Module, Callable]) -> Operations:
    """Run a model once under mmengine's complexity analysis. Model and inputs do not change.

    Args:
        model: Any module.
        inputs: A tensor, a tuple of positional arguments or a dict of keyword arguments. What is
            not made of tensors is passed on as it is.
        record: Forward hooks by module.

    Raises:
        ModuleNotFoundError: If mmengine is missing.
        TypeError: If there is an iterator among the inputs.
    """
    traced = _Traced(model, _copied(inputs))
    analyzer = _analyzer(traced, (traced.tensors,))
    with as_before(model), undisturbed(model), _without_fused_attention():
        for module, hook in record.items():
            module.register_forward_hook(hook)
        statistics = analyzer._analyze()
    return Operations(
        _own(statistics.counts),
        _own(statistics.unsupported_ops),
        _untouched(model, {_inner(name) for name in statistics.uncalled_mods}),
    )


def _analyzer(model: nn.Module, inputs: tuple):
    require('mmengine', 'count_cost')
    from mmengine.analysis import FlopAnalyzer

    class Analyzer(FlopAnalyzer):
        def _should_ignore_node(self, node) -> bool:
            # The graph also computes shapes. Only operators on tensors are worth a line.
            return super()._should_ignore_node(node) or all(map(_is_scalar, node.outputs()))

    analyzer = Analyzer(model, inputs)
    analyzer.set_op_handle('aten::scaled_dot_product_attention', _attention)
    analyzer.set_op_handle('aten::baddbmm', _baddbmm)
    return (
        analyzer.unsupported_ops_warnings(False)
        .uncalled_modules_warnings(False)
        .tracer_warnings('none')
    )


def _is_scalar(value) -> bool:
    if isinstance(value.type(), torch._C.TensorType):
        return value.isCompleteTensor() and not _shape(value)
    return isinstance(value.type(), (torch._C.IntType, torch._C.FloatType, torch._C.BoolType))


@contextmanager
def _without_fused_attention():
    """Let nn.MultiheadAttention run known operators, not the one that fuses them in eval mode."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _inner(name: str) -> str:
    """Return the name of a module within the model that :class:`_Traced` wraps."""
    return name.removeprefix('model').removeprefix('.')


def _own(counts: Mapping[str, Counter]) -> dict[str, Counter]:
    """Subtract from each module's counts those of its children."""
    own = {name: Counter(count) for name, count in counts.items()}
    for name, count in counts.items():
        if name:
            own[name.rpartition('.')[0]].subtract(count)
    return {_inner(name): +count for name, count in own.items() if name}


def _untouched(model: nn.Module, uncalled: set[str]) -> tuple[str, ...]:
    """Return the outermost containers with parameters in which nothing was called."""
    names = {name: module for name, module in model.named_modules() if name in uncalled and name}
    found: list[str] = []
    for name, module in names.items():
        inside = [child for child, _ in module.named_modules(prefix=name) if child != name]
        if (
            inside
            and set(inside) <= uncalled
            and any(_own_parameters(part) for part in module.modules())
            and not any(name.startswith(f'{outer}.') for outer in found)
        ):
            found.append(name)
    return tuple(found)


def _own_parameters(module: nn.Module) -> bool:
    """Tell whether a module has parameters of its own other than the clips of a quantizer."""
    return bool(module._parameters) and not isinstance(module, UniformQuantizer)
