"""Parts of graphs that are written anew for ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from test_tidy import as_written, graph

from mmwcc.deployment.tidy import tidy

GELU = (
    'half = Constant<value = float {{0.5}}>() root = Constant<value = float {{1.4142135}}>() '
    'one = Constant<value = float {{1.0}}>() d = Div(x, root) e = Erf(d) p = Add({sum}) '
)
ORDERS = ['q = Mul(half, p) y0 = Mul(x, q) ', 'q = Mul(x, p) y0 = Mul(q, half) ']


def kinds(model):
    return [node.op_type for node in model.graph.node if node.op_type != 'Constant']


@pytest.mark.parametrize('body', ORDERS)
@pytest.mark.parametrize('terms', ['e, one', 'one, e'])
def test_gelu_is_one_operator(body, terms):
    model = graph(GELU.format(sum=terms) + body + 'y = Neg(y0)')
    x = 3 * np.random.default_rng(0).normal(size=(1, 4, 6, 6)).astype(np.float32)
    tidy(model, own_operators=True)
    onnx.checker.check_model(model)
    assert kinds(model) == ['Gelu', 'Neg']
    expected = -F.gelu(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(as_written(model, x)[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    'body',
    [
        'q = Mul(half, p) y0 = Mul(d, q) y = Neg(y0)',  # times another map
        'q = Mul(one, p) y0 = Mul(x, q) y = Neg(y0)',
        'q = Mul(half, p) r = Mul(x, q) y0 = Add(r, p) y = Neg(y0)',  # something else reads p
        'q = Mul(half, p) y = Mul(x, q)',  # the graph returns it under its name
    ],
)
def test_what_only_looks_like_gelu_stays(body):
    model = graph(GELU.format(sum='e, one') + body)
    before = kinds(model)
    tidy(model, own_operators=True)
    assert kinds(model) == before


@pytest.mark.parametrize(
    ('body', 'expected'),
    [
        ('s = Sigmoid(x) p = Mul(s, x) y = Neg(p)', ['QuickGelu', 'Neg']),
        ('s = Sigmoid(x) p = Mul(x, s) y = Neg(p)', ['QuickGelu', 'Neg']),
        ('s = Sigmoid(x) p = Mul(s, s) y = Neg(p)', ['Sigmoid', 'Mul', 'Neg']),
        ('s = Sigmoid(x) n = Neg(x) p = Mul(n, s) y = Neg(p)', ['Sigmoid', 'Neg', 'Mul', 'Neg']),
        ('s = Sigmoid(x) y = Mul(x, s)', ['Sigmoid', 'Mul']),
    ],
)
def test_silu_is_one_operator(body, expected):
    model = graph(body)
    x = 3 * np.random.default_rng(0).normal(size=(1, 4, 6, 6)).astype(np.float32)
    before = as_written(model, x)[0]
    tidy(model, own_operators=True)
    assert sorted(kinds(model)) == sorted(expected)
    np.testing.assert_allclose(as_written(model, x)[0], before, atol=1e-6)


@pytest.mark.parametrize('dynamo', [True, False])
def test_the_gelu_of_both_exporters_is_found(dynamo, tmp_path):
    class Twice(torch.nn.Module):
        def forward(self, x):
            return F.gelu(x) - F.gelu(2 * x)

    path = tmp_path / 'net.onnx'
    arguments = dict(dynamo=dynamo, opset_version=18, verbose=False)
    torch.onnx.export(Twice(), (torch.ones(1, 4, 6, 6),), path, **arguments)
    model = onnx.load(path)
    tidy(model, own_operators=True)
    assert kinds(model).count('Gelu') == 2 and 'Erf' not in kinds(model)
    onnxruntime.InferenceSession(model.SerializeToString())
