"""Which maps are stored in 8 bits, and on whose grid."""

import torch
import torch.nn.functional as F
from test_flow import Net, flow
from torch import nn

from mmwcc.layers import QuantConv2d
from mmwcc.maps import plan_maps


def layer(bits=8):
    return QuantConv2d(4, 4, 1, act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=bits))


def plan(run, bits=8, **kwargs):
    model = Net(run)
    model.c = nn.Conv2d(4, 4, 1)
    maps, norms = flow(model)
    layers = {name: layer(bits) for name in ('a', 'b', 'c')}
    return plan_maps(maps, norms, layers, **kwargs)


def test_a_map_with_one_reader_is_on_its_grid():
    made = plan(lambda net, x: net.b(net.relu(net.norm(net.a(x)))))
    assert made.grids == {'relu(norm(a))': 'b'} and not made.own
    assert made.chains['a'] == ['a', 'norm(a)', 'relu(norm(a))'] and made.chains['b'] == ['b']
    assert made.activation('a') == 'relu' and made.last('a') == 'relu(norm(a))'
    assert made.activation('b') == '' and made.norms == {'a': 'norm'} and made.layers == ['a', 'b']


def test_a_map_with_several_readers_has_a_grid_of_its_own():
    made = plan(lambda net, x: (net.b(y := net.a(x)), net.c(y)))
    assert made.grids == {'a': 'a'} and made.own == ['a']


def test_a_map_with_the_name_of_its_reader_has_another_grid():
    """What a layer writes has the layer's name, and a grid of its own beside that of its input."""
    made = plan(lambda net, x: net.c((y := net.b(net.a(x))) + F.silu(y)))
    assert made.grids == {'a': 'b', 'b': 'b', 'silu(b)': 'silu(b)', 'add(b,silu(b))': 'c'}
    assert made.on_layer('a') and not made.on_layer('b') and made.own == ['b', 'silu(b)']
    assert made.on_layer('add(b,silu(b))') and not made.on_layer('silu(b)')


def test_a_map_that_a_sum_reads_too_keeps_the_grid_of_a_reader_of_8_bits():
    def run(net, x):
        y = net.a(x)
        return net.c(y + net.b(y))

    assert plan(run).grids == {'a': 'b', 'b': 'b', 'add(a,b)': 'c'}
    # On the grid of fewer bits the sum would lose what the layer never reads.
    assert plan(run, bits=4).grids == {'a': 'a', 'b': 'b', 'add(a,b)': 'c'}


def test_a_concatenation_gives_its_grid_to_what_only_it_reads():
    made = plan(lambda net, x: net.c(torch.cat([net.a(x), F.silu(net.b(x))], 1)[:, :4]))
    assert made.grids == {'a': 'c', 'silu(b)': 'c', 'cat(a,silu(b))': 'c'}
    made = plan(
        lambda net, x: (net.b(y := torch.cat([net.a(x), x], 1)[:, :4]), net.c(y))
    )  # fmt: skip
    assert made.grids == {'a': 'cat(a,)', 'cat(a,)': 'cat(a,)'} and made.own == ['cat(a,)']


def test_sums_may_be_rounded_before_functions():
    def run(net, x):
        x = F.silu(net.norm(net.a(x)))
        return net.c(net.relu(net.b(x))) * 2

    usual = {'silu(norm(a))': 'b', 'relu(b)': 'c'}
    assert plan(run).grids == usual
    made = plan(run, round_sums=True)
    assert made.grids == {'norm(a)': 'norm(a)', **usual, 'c': 'c'}
    assert made.chains['a'] == ['a', 'norm(a)'] and made.activation('b') == 'relu'
    made = plan(lambda net, x: net.norm(net.a(x)) + net.norm(net.b(x)), round_sums=True)
    assert made.grids == {'a': 'a', 'b': 'b'}  # a BatchNorm that cannot be folded is a function
    made = plan(lambda net, x: net.a(x).exp(), round_sums=True)
    assert not made.grids  # what leaves the integers keeps its precision


def test_what_nothing_reads_in_integers_stays_float():
    made = plan(lambda net, x: net.a(x).softmax(1) + net.b(x).mean() * net.c(x))
    assert made.grids == {} and made.layers == ['a', 'b', 'c']
    made = plan(lambda net, x: F.relu(net.a(x) + net.b(x)))
    assert made.grids == {} and made.chains['add(a,b)'] == ['add(a,b)', 'relu(add(a,b))']


def test_only_activations_of_the_whole_map_are_fused():
    made = plan(lambda net, x: net.b(F.relu(F.max_pool2d(net.a(x), 2))))
    assert made.chains['a'] == ['a'] and made.grids == {'a': 'a', 'relu(a)': 'b'}
    made = plan(lambda net, x: net.b(F.silu(net.a(x)[:, :4])))
    assert made.activation('a') == ''
    made = plan(lambda net, x: net.b(F.gelu(net.a(x))))
    assert made.activation('a') == '' and made.grids == {'a': 'a', 'gelu(a)': 'b'}
    made = plan(lambda net, x: net.c(F.silu(net.a(x) + net.b(x))))
    assert made.activation('add(a,b)') == ''
    made = plan(lambda net, x: net.c(F.relu(net.a(x) + net.b(x))))
    assert made.activation('add(a,b)') == 'relu'


def test_convolutions_of_a_plan_are_those_that_ran():
    assert plan(lambda net, x: net.b(x)).layers == ['b']
    assert isinstance(Net(None).a, nn.Conv2d)
