"""Each change that lets runtimes compute a graph in integers, on graphs of a few nodes."""

import numpy as np
import onnx
import onnxruntime
import pytest

from mmwcc.deployment.runtime import open_session
from mmwcc.deployment.tidy import tidy

GRIDS = (
    'float step = {0.1}, float other = {0.2}, uint8 zero = {0}, uint8 middle = {128}, '
    'int8 signed = {0}, float none = {0}, float six = {6}, float many = {60}, float low = {-12.7}, '
    'float high = {12.7}'
)


def graph(body, outputs='y', kind='float'):
    results = ', '.join(f'{kind}[1, 4, 6, 6] {name}' for name in outputs.split())
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]>\n'
        f'net (float[1, 4, 6, 6] x) => ({results}) <{GRIDS}> {{ {body} }}'
    )
    onnx.checker.check_model(model)
    return model


def as_written(model, x):
    """Return the outputs of a graph of which ONNX Runtime changes nothing."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {'x': x})


def tidied(model, **kwargs):
    """Return the operators of a graph after the changes, which must not change what it returns."""
    x = 20 * np.random.default_rng(0).normal(size=(1, 4, 6, 6)).astype(np.float32)
    before = as_written(model, x)
    tidy(model, **kwargs)
    onnx.checker.check_model(model)
    np.testing.assert_array_equal(before, as_written(model, x))
    return [node.op_type for node in model.graph.node]


def rounding(x, y, grid='step, zero'):
    return f'{y}q = QuantizeLinear({x}, {grid}) {y} = DequantizeLinear({y}q, {grid}) '


PAIR = ['QuantizeLinear', 'DequantizeLinear']


def test_a_second_rounding_to_one_grid_goes():
    assert tidied(graph(rounding('x', 'a') + rounding('a', 'b') + 'y = Neg(b)')) == [*PAIR, 'Neg']


@pytest.mark.parametrize('grid', ['other, zero', 'step, middle'])
def test_a_rounding_to_another_grid_stays(grid):
    body = rounding('x', 'a') + rounding('a', 'b', grid) + 'y = Neg(b)'
    assert tidied(graph(body)) == [*PAIR, *PAIR, 'Neg']


def test_the_second_clip_of_a_small_grid_goes_with_its_rounding():
    clipped = 'c = Clip(x, low, high) ' + rounding('c', 'a', 'step, middle')
    body = clipped + 'd = Clip(a, low, high) ' + rounding('d', 'b', 'step, middle') + 'y = Neg(b)'
    assert tidied(graph(body)) == ['Clip', *PAIR, 'Neg']
    other = clipped + 'd = Clip(a, none, high) ' + rounding('d', 'b', 'step, middle') + 'y = Neg(b)'
    assert tidied(graph(other)).count('Clip') == 2


@pytest.mark.parametrize(
    ('activation', 'grid', 'left'),
    [
        ('Relu(x)', 'step, zero', []),
        ('Relu(x)', 'step, middle', ['Relu']),
        ('Clip(x, none, many)', 'step, zero', []),  # 60 is above the highest level, 25.5
        ('Clip(x, none, six)', 'step, zero', ['Clip']),
        ('Clip(x, low, high)', 'step, middle', ['Clip']),  # the level -128 is outside
    ],
)
def test_an_activation_goes_where_the_grid_does_the_same(activation, grid, left):
    assert tidied(graph(f'a = {activation} ' + rounding('a', 'y', grid))) == [*left, *PAIR]


def test_a_clip_behind_relu_needs_no_lower_bound():
    body = 'r = Relu(x) a = Clip(r, low, high) ' + rounding('a', 'y', 'step, signed')
    assert tidied(graph(body)) == ['Relu', *PAIR]


def test_an_activation_that_something_else_reads_stays():
    body = 'a = Relu(x) ' + rounding('a', 'y') + 'z = Neg(a)'
    assert sorted(tidied(graph(body, 'y z'))) == sorted(['Relu', *PAIR, 'Neg'])
    assert tidied(graph('z = Relu(x) ' + rounding('z', 'y'), 'y z')) == ['Relu', *PAIR]


def test_zero_points_are_named():
    model = graph('a = QuantizeLinear(x, step, signed) y = DequantizeLinear(a, step)')
    assert tidied(model) == PAIR and list(model.graph.node[1].input) == ['a', 'step', 'signed']


def test_readers_of_a_second_grid_get_a_rounding_each():
    body = rounding('x', 'a') + rounding('a', 'b', 'other, zero') + 'y = Neg(b) z = Abs(b)'
    model = graph(body, 'y z')
    assert tidied(model).count('QuantizeLinear') == 3
    # ONNX Runtime leaves the values alone then.
    x = 20 * np.random.default_rng(1).normal(size=(1, 4, 6, 6)).astype(np.float32)
    np.testing.assert_array_equal(as_written(model, x), open_session(model).run(None, {'x': x}))


def test_what_a_concatenation_reads_is_rounded_before_it():
    body = rounding('x', 'd') + 'e = Neg(x) c = Concat<axis = 2>(d, e) '
    behind = rounding('c', 'a', 'other, zero') + rounding('a', 'b') + 'y = Relu(b)'
    model = graph(body + behind)
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 12
    assert tidied(model, early_concat=True).count('QuantizeLinear') == 4
    concat = next(node for node in model.graph.node if node.op_type == 'Concat')
    makers = {node.output[0]: node for node in model.graph.node}
    assert {makers[name].op_type for name in concat.input} == {'DequantizeLinear'}
    openvino = pytest.importorskip('openvino')  # which ends the process otherwise
    openvino.compile_model(openvino.Core().read_model(model.SerializeToString()), 'CPU')


def test_a_concatenation_that_is_rounded_once_stays():
    model = graph('c = Concat<axis = 2>(x, x) ' + rounding('c', 'y'))
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 12
    assert tidied(model, early_concat=True) == ['Concat', *PAIR]


CONV = (
    'w = Constant<value: tensor = int8[4, 1, 1, 1] {1, -128, 127, 3}>() '
    'v = DequantizeLinear(w, step) '
    'b = Constant<value: tensor = float[4] {0.5, 1.5, -1, 2}>() '
    'c = Conv<group=4>(a, v, b) '
)


def test_sums_that_stay_in_floating_point_are_made_of_integers():
    body = rounding('x', 'a', 'step, middle') + CONV + 'y = Neg(c)'
    model = graph(body)
    x = 20 * np.random.default_rng(0).normal(size=(1, 4, 6, 6)).astype(np.float32)
    before = as_written(model, x)
    tidy(model, integer_sums=True)
    kinds = [node.op_type for node in model.graph.node]
    assert 'Conv' not in kinds and kinds.count('ConvInteger') == 1
    after = open_session(model).run(None, {'x': x})
    np.testing.assert_allclose(before, after, rtol=1e-6, atol=1e-5)


def test_sums_that_are_rounded_at_once_stay_for_the_runtime_to_fuse():
    model = graph(rounding('x', 'a', 'step, middle') + CONV + rounding('c', 'y'))
    tidy(model, integer_sums=True)
    assert 'Conv' in [node.op_type for node in model.graph.node]
