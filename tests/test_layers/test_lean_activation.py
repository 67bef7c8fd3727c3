"""Activations that keep masks for backward."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mmwcc.inference import clamp_bounds
from mmwcc.layers import LeanReLU, LeanReLU6

PAIRS = [(nn.ReLU, LeanReLU), (nn.ReLU6, LeanReLU6)]
VALUES = torch.tensor(
    [-1.0, -0.0, 0.0, 1e-30, 3.0, 6.0, 6.5, float('inf'), float('-inf'), float('nan')]
)


def run(module, x):
    x = x.clone().requires_grad_()
    y = module(x * 1)  # a tensor that may be overwritten
    y.backward(torch.arange(1.0, y.numel() + 1).view_as(y))
    return y.detach(), x.grad


@pytest.mark.parametrize('inplace', [False, True])
@pytest.mark.parametrize(('stock', 'lean'), PAIRS)
def test_outputs_and_gradients_are_those_of_torch(stock, lean, inplace):
    for expected, got in zip(run(stock(inplace), VALUES), run(lean(inplace), VALUES), strict=True):
        assert torch.equal(expected.nan_to_num(-7), got.nan_to_num(-7))


@pytest.mark.parametrize(('stock', 'lean'), PAIRS)
def test_keeps_one_byte_a_value(stock, lean):
    saved = {}
    for kind in (stock, lean):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=sizes: s.append(t.nbytes) or t, lambda t: t
        ):
            kind()(torch.randn(4, 5, requires_grad=True))
        saved[kind] = sum(sizes)
    assert saved == {stock: 80, lean: 20}


@pytest.mark.parametrize('lean', [LeanReLU, LeanReLU6])
def test_overwrites_only_where_asked(lean):
    x = torch.randn(8)
    for grad in (False, True):
        y = x.clone().requires_grad_(grad) * 1
        assert lean(inplace=True)(y).data_ptr() == y.data_ptr()
        assert lean()(y).data_ptr() != y.data_ptr()


@pytest.mark.parametrize(('stock', 'lean'), PAIRS)
def test_fused_blocks_know_them(stock, lean):
    assert clamp_bounds(lean()) == clamp_bounds(stock())


def test_gradient_checks():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    for module in (LeanReLU(), LeanReLU6()):
        assert torch.autograd.gradcheck(module, x) and torch.autograd.gradgradcheck(module, x)


def test_compiles_and_copies():
    x = torch.randn(5, requires_grad=True)
    assert torch.equal(
        torch.compile(LeanReLU6(), backend='eager', fullgraph=True)(x), nn.ReLU6()(x)
    )
    for module in (copy.deepcopy(LeanReLU(True)), pickle.loads(pickle.dumps(LeanReLU(True)))):
        assert isinstance(module, nn.ReLU) and module.inplace
