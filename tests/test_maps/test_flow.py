"""Names of maps, and who makes and reads them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmwcc.maps import combined, map_flow


def flow(model, *followed, size=8):
    """Follow the maps of these layers of a model, of all its convolutions by default."""
    names = followed or [
        name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        return map_flow(model.eval(), names, lambda: model(torch.zeros(1, 4, size, size)))


class Net(nn.Module):
    """Two convolutions, BatchNorm, and a forward that each test gives."""

    def __init__(self, run):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.relu, self.run = nn.ReLU(inplace=True), run

    def forward(self, x):
        return self.run(self, x)


def test_functions_name_maps_after_what_they_read():
    maps, _ = flow(Net(lambda net, x: F.relu(net.a(x)) + torch.sigmoid(net.b(x))))
    assert list(maps) == ['a', 'relu(a)', 'b', 'sigmoid(b)', 'add(relu(a),sigmoid(b))']
    assert maps['a'].reads == ('',) and maps['a'].operation == ''
    assert maps['relu(a)'].functions == ['add(relu(a),sigmoid(b))']
    assert maps['a'].only_function == 'relu(a)'


def test_layers_inside_modules_have_slashes_in_names_of_functions():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), nn.Conv2d(4, 4, 1))
    assert list(flow(model)[0]) == ['0.0', 'relu(0/0)', '1']


def test_forms_of_a_function_have_one_name():
    def run(net, x):
        y = net.a(x)
        y += net.b(x)
        return net.relu(y)

    maps, _ = flow(Net(run))
    assert list(maps) == ['a', 'b', 'add(a,b)', 'relu(add(a,b))']


def test_a_function_in_place_gives_its_argument_another_name():
    def run(net, x):
        y = net.a(x)
        F.relu_(y)
        return net.b(y)

    maps, _ = flow(Net(run))
    assert maps['relu(a)'].layers == ['b'] and not maps['a'].layers


def test_functions_that_keep_the_grid_keep_the_name():
    def run(net, x):
        first, second = net.a(x).chunk(2, 1)
        return net.b(F.max_pool2d(torch.cat([second, first], 1), 2))

    maps, _ = flow(Net(run))
    assert list(maps) == ['a', 'cat(a,a)', 'b']
    assert maps['cat(a,a)'].layers == ['b'] and maps['a'].moved and maps['cat(a,a)'].moved


def test_the_0_at_which_sums_start_makes_no_map():
    maps, _ = flow(Net(lambda net, x: net.b(sum([net.a(x), 2 * net.a(x)]) * 1)))
    assert list(maps) == ['a', 'mul(a)', 'add(a,mul(a))', 'b']


def test_unknown_functions_take_the_name_away():
    maps, _ = flow(Net(lambda net, x: net.b(net.a(x).softmax(1)) + net.a(x).mean()))
    assert maps['a'].left == ['softmax', 'mean'] and maps['b'].reads == ('',)
    assert 'add(b,)' in maps


@pytest.mark.parametrize('change', [lambda y: y.clamp_(0), lambda y: y.__setitem__(0, 0.0)])
def test_unknown_functions_in_place_take_the_name_away(change):
    def run(net, x):
        y = net.a(x)
        change(y)
        return net.b(y)

    maps, _ = flow(Net(run))
    assert not maps['a'].layers and maps['b'].reads == ('',)
    assert maps['a'].left == [change(torch.ones(1)) is None and 'setitem' or 'clamp']


def test_layers_that_are_not_followed_read_values():
    maps, _ = flow(Net(lambda net, x: net.b(net.a(x))), 'a')
    assert list(maps) == ['a'] and maps['a'].left == ['conv2d'] and not maps['a'].layers


def test_a_shared_layer_has_one_name():
    model = Net(lambda net, x: (net.b(F.relu(net.a(x))), net.b(net.a(x[..., 1:]))))
    maps, _ = flow(model)
    assert list(maps) == ['a', 'relu(a)', 'b']
    assert maps['a'].functions == ['relu(a)'] and maps['a'].layers == ['b']


def test_batch_norm_is_folded_where_it_alone_reads_a_layer():
    maps, folded = flow(Net(lambda net, x: net.relu(net.norm(net.a(x))) + net.b(x)))
    assert folded == {'a': 'norm'}
    assert list(maps)[:3] == ['a', 'norm(a)', 'relu(norm(a))']


@pytest.mark.parametrize(
    'run',
    [
        lambda net, x: net.norm(net.a(x)) + net.other(net.a(x)),  # one for each level
        lambda net, x: net.norm(net.a(x)) + net.norm(net.b(x)),
        lambda net, x: net.norm(y := net.a(x)) + y,
        lambda net, x: net.norm(y := net.a(x)) + net.b(y),
        lambda net, x: net.norm(net.a(x).clamp(0)),
        lambda net, x: net.norm(net.a(x).flip(0)),
        lambda net, x: net.norm(F.relu(net.a(x))),
        lambda net, x: net.norm(F.max_pool2d(net.a(x), 2)),
        lambda net, x: net.norm(net.a(x) + net.b(x)),
        lambda net, x: net.norm(net.norm(net.a(x))),
    ],
)
def test_batch_norm_is_not_folded(run):
    maps, folded = flow(Net(run))
    assert not folded and not any('norm' in name for name in maps)


def test_long_names_are_short_and_stay_different():
    one, other = 'x' * 300 + 'a', 'x' * 300 + 'b'
    names = {combined('add', [one, '']), combined('add', [other, '']), combined('add', [other])}
    assert len(names) == 3 and all(len(name) < 250 and '.' not in name for name in names)
    assert combined('relu', ['b.0']) == 'relu(b/0)' and combined('add', [one]).startswith('add(x')


def test_the_model_is_left_as_it_was():
    model = Net(lambda net, x: net.norm(net.a(x)))
    flow(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
