"""Every operator says what it costs, beside its registration."""

import pytest
import torch

from mmwcc import kernels
from mmwcc.kernels.library import Cost, free, register


def operators():
    names = torch._C._dispatch_get_all_op_names()
    return {name.split('::')[1].split('.')[0] for name in names if name.startswith('mmwcc::')}


def test_every_operator_has_a_cost_rule():
    assert set(kernels.COSTS) == operators()
    assert {'haar_pack', 'fake_quant', 'int8_linear'} <= operators()


def test_an_operator_cannot_be_registered_without_one():
    before = operators()
    with pytest.raises(TypeError, match='cost'):
        register('nothing(Tensor x) -> Tensor', lambda x: x.clone(), torch.empty_like)
    assert operators() == before


X, SLOT, ROWS = (2, 24, 16, 40), (2, 640), (2, 100, 24)
EXPECTED = {
    'haar_pack': ((X, SLOT, 100, 3), Cost(transform=(24, 1280, 3))),
    'haar_pack_int8': ((X, SLOT, 100, 3, (1,), -128, 127), Cost(transform=(24, 1280, 3))),
    'haar_shrink': (((2, 24, 13, 33), 100, 3), Cost(transform=(24, 1280, 3))),  # padded to 16x40
    'haar_shrink_int8': (((2, 24, 13, 33), 100, 3, (1,), -128, 127), Cost(transform=(24, 1280, 3))),
    'haar_unpack': (
        (ROWS, SLOT, None, 13, 33, 3, False, None, None, None),
        Cost(transform=(24, 1280, 3)),
    ),
    'depthwise_haar': (
        (X, (24, 1, 5, 5), None, 1, 3, None, 6.0),
        Cost(2 * 24 * 16 * 40 * 25, 'conv', (24, 1280, 3)),
    ),
    'multiply_rows': ((ROWS, (7, 24, 1, 1)), Cost(2 * 100 * 24 * 7, 'linear')),
    'int8_linear': ((ROWS, (7, 24), (7,), None), Cost(2 * 100 * 24 * 7, 'int8_linear')),
}


@pytest.mark.parametrize('name', sorted(kernels.COSTS))
def test_costs(name):
    rule = kernels.COSTS[name]
    arguments, expected = EXPECTED.get(name, ((X, 3), Cost()))
    assert rule(*arguments) == expected
    assert (rule is free) == (name not in EXPECTED)
