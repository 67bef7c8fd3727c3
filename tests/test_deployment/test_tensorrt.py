"""The rules of TensorRT, on graphs of a few nodes."""

import onnx
import pytest

from mmwcc.deployment import ExportError, check_tensorrt

HEAD = '<ir_version: 9, opset_import: ["" : 18]>\nnet (float[1, 8] x, float s, int64[1] n) => '


def graph(body, constants):
    return onnx.parser.parse_model(f'{HEAD} (float[1, 8] y) <{constants}> {{ {body} }}')


def test_symmetric_int8_is_accepted():
    body = 'q = QuantizeLinear(x, step, zero) y = DequantizeLinear(q, step)'
    check_tensorrt(graph(body, 'float step = {0.1}, int8 zero = {0}'))


@pytest.mark.parametrize(
    ('point', 'got'), [('uint8 zero = {0}', 'uint8'), ('int8 zero = {3}', 'int8')]
)
def test_other_levels_are_refused(point, got):
    body = 'q = QuantizeLinear(x, step, zero) y = DequantizeLinear(q, step, zero)'
    with pytest.raises(ExportError, match=f'must be int8 with zero point 0, got {got} at q'):
        check_tensorrt(graph(body, f'float step = {{0.1}}, {point}'))


def test_a_bias_in_integers_is_refused():
    body = 'y = DequantizeLinear(bias, step)'
    with pytest.raises(ExportError, match='must be int8 with zero point 0, got int32 at y'):
        check_tensorrt(graph(body, 'float step = {0.1}, int32[1, 8] bias = {1,2,3,4,5,6,7,8}'))


@pytest.mark.parametrize('step', ['s', 'zero'])
def test_scales_are_positive_constants(step):
    body = f'q = QuantizeLinear(x, {step}, point) y = DequantizeLinear(q, {step})'
    with pytest.raises(ExportError, match='scale of QuantizeLinear must be positive and constant'):
        check_tensorrt(graph(body, 'float zero = {0}, int8 point = {0}'))


def test_topk_is_short_and_constant():
    check_tensorrt(graph('y, i = TopK(x, k)', 'int64[1] k = {3840}'))
    with pytest.raises(ExportError, match='k of at most 3840, got k=3841. Export with --selection'):
        check_tensorrt(graph('y, i = TopK(x, k)', 'int64[1] k = {3841}'))
    with pytest.raises(ExportError, match='got a k that depends on the input'):
        check_tensorrt(graph('y, i = TopK(x, n)', ''))
