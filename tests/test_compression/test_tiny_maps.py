"""Layers whose maps are smaller than a patch whatever the image: found, quantized, not
transformed.
"""

import copy
import re
import threading
import warnings

import pytest
import torch
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.compression.map_sizes import fixed_maps
from mmwcc.compression.tiny_maps import too_small
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d

POINTWISE = dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.25)
QUANTIZERS = dict(
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)
QUANTIZED = dict(pointwise=POINTWISE, other=dict(type='mmwcc.QuantConv2d'), **QUANTIZERS)
TRANSFORM = dict(pattern='attention', type='mmwcc.WaveletCompressedConv2d')


class Net(nn.Module):
    """Channel attention, pooling to 6x6 and to 8x8, and a map that is tiny on small images
    alone.
    """

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.point = nn.Conv2d(8, 8, 1)
        self.attention = nn.Conv2d(8, 8, 1)
        self.six = nn.Sequential(nn.AdaptiveAvgPool2d(6), nn.Conv2d(8, 8, 1))
        self.eight = nn.Sequential(nn.AdaptiveMaxPool2d(8), nn.Conv2d(8, 8, 1))
        self.both = nn.Conv2d(8, 8, 1)
        self.coarse = nn.Sequential(nn.MaxPool2d(32, ceil_mode=True), nn.Conv2d(8, 8, 1))
        self.last = nn.Conv2d(8, 2, 1)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        x = self.point(self.stem(x))
        x = x * self.attention(x.mean((2, 3), keepdim=True)).sigmoid()
        x = x + self.both(x) + self.both(x.mean((2, 3), keepdim=True))
        for branch in (self.six, self.eight, self.coarse):
            x = x + nn.functional.interpolate(branch(x), x.shape[2:])
        return self.last(x)


def compress(model=None, **changes):
    model = Net() if model is None else model
    return model, compress_model(model, {**QUANTIZED, **changes}, verbose=False)


def kinds(model):
    return {
        name: type(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    }


def test_what_a_patch_is_too_large_for():
    assert too_small([(1, 1), (1, 1)], 3) == 'works on one pixel'
    assert (
        too_small([(3, 3), (1, 8)], 3) == 'works on maps of 3x3, 1x8, smaller than a patch of 8x8'
    )
    assert too_small([(3, 3)], 1) == '' == too_small([], 3) == too_small([(4, 4), (4, 8)], 2)


def test_maps_of_fixed_size_are_found_without_running_the_model():
    model, seen = Net().train(), []
    model.point.register_forward_hook(lambda *_: seen.append(1))
    random = torch.get_rng_state()
    sizes = fixed_maps(model).sizes
    assert sizes == {
        model.attention: [(1, 1)],
        model.six[1]: [(6, 6)],
        model.eight[1]: [(8, 8)],
    }
    assert model.calls == 0 and not seen and model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_tiny_maps_are_quantized_and_the_report_says_why():
    model, report = compress()
    assert kinds(model) == {
        'stem': nn.Conv2d,
        'point': WaveletCompressedConv2d,
        'attention': QuantConv2d,
        'six.1': QuantConv2d,
        'eight.1': WaveletCompressedConv2d,
        'both': WaveletCompressedConv2d,
        'coarse.1': WaveletCompressedConv2d,
        'last': nn.Conv2d,
    }
    reasons = {layer.name: layer.reason for layer in report if layer.reason}
    assert reasons['attention'] == 'works on one pixel'
    assert reasons['six.1'] == 'works on maps of 6x6, smaller than a patch of 8x8'
    assert (model.attention.weight_quant.bits, model.attention.act_quant.bits) == (8, 8)
    assert model.calls == 0


def test_fewer_levels_fit_smaller_maps():
    model, _ = compress(pointwise=dict(POINTWISE, levels=2))
    assert type(model.six[1]) is WaveletCompressedConv2d
    assert type(model.attention) is QuantConv2d


def test_without_quantizers_they_stay_dense():
    model, report = compress(other=None, weight_quant=None, act_quant=None)
    assert type(model.attention) is nn.Conv2d and type(model.point) is WaveletCompressedConv2d
    assert {layer.name: layer.reason for layer in report}['attention'] == 'works on one pixel'


def test_quantizers_of_wavelet_layers_alone_count_too():
    model, _ = compress(
        pointwise=dict(POINTWISE, **QUANTIZERS), other=None, weight_quant=None, act_quant=None
    )
    assert type(model.attention) is QuantConv2d and model.attention.act_quant.bits == 8


def test_a_rule_that_names_the_type_decides():
    model, report = compress(rules=[TRANSFORM])
    assert type(model.attention) is WaveletCompressedConv2d
    assert type(model.six[1]) is QuantConv2d
    assert {layer.name: layer.reason for layer in report}['attention'] == ''
    assert type(compress(rules=[dict(pattern='attention', keep_ratio=0.5)])[0].attention) is (
        QuantConv2d
    )


class Needy(Net):
    """A network that cannot run on an image alone, but reaches its attention first."""

    def forward(self, x, samples=None):
        x = self.point(self.stem(x))
        x = x * self.attention(x.mean((2, 3), keepdim=True))
        return self.last(self.six(x) + len(samples))


class Uncopyable(Net):
    def __deepcopy__(self, memo):
        raise RuntimeError('one of a kind')


def test_what_a_model_does_not_reach_is_transformed_and_the_report_says_so():
    needy, report = compress(Needy())
    assert type(needy.attention) is type(needy.six[1]) is QuantConv2d
    assert type(needy.eight[1]) is type(needy.both) is WaveletCompressedConv2d
    (note,) = report.notes
    assert note.startswith(
        'compress_model: Needy must run on an image of shape (1, 3, 64, 64) to show the sizes of '
        "all maps, but TypeError: object of type 'NoneType' has no len(). These layers were not "
        'reached and have wavelets even if their maps are smaller than a patch: eight.1, both, '
        'coarse.1. '
    )
    assert note in str(report)


def test_a_second_argument_is_named():
    class Pair(Net):
        def forward(self, x, y):
            return super().forward(x + y)

    model, report = compress(Pair())
    assert type(model.attention) is WaveletCompressedConv2d
    assert "missing 1 required positional argument: 'y'. These layers" in report.notes[0]
    assert 'point, attention, six.1, eight.1 and 2 more. Give' in report.notes[0]


def test_nothing_is_said_where_all_is_known():
    class Failing(Net):
        def forward(self, x):
            return super().forward(x) + None

    assert compress()[1].notes == []
    assert compress(Failing())[1].notes == []  # all wavelet layers ran before it failed


class Locked(Net):
    """Cannot be copied, and has a buffer and a hook that a run would change or call."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.register_buffer('seen', torch.zeros(1))

    def forward(self, x):
        with self.lock:
            self.seen.add_(1)
            return super().forward(x)


class Cached(Net):
    """Keeps a tensor with a graph, which cannot be copied."""

    def __init__(self):
        super().__init__()
        self.cache = self.stem(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize('kind', [Uncopyable, Locked, Cached])
def test_a_model_that_cannot_be_copied_gets_the_same_layers(kind):
    model, seen = kind(), []
    model.point.register_forward_hook(lambda *_: seen.append(1))
    _, report = compress(model)
    assert kinds(model) == kinds(compress()[0])
    assert model.calls == 0 and not seen and model.training
    assert all(
        torch.equal(buffer, torch.zeros(1))
        for name, buffer in model.named_buffers()
        if name == 'seen'
    )
    assert len(model.point._forward_hooks) == 1
    (note,) = report.notes
    assert note.startswith(f'{kind.__name__} cannot be copied (') and 'ran itself' in note


def test_a_loop_on_values_ends():
    class Growing(Net):
        def forward(self, x):
            while x.max() < 4:
                assert x.any(), 'would never end'
                x = 2 * x
            return super().forward(x)

    model, report = compress(Growing())
    assert type(model.attention) is QuantConv2d and report.notes == []


@pytest.mark.parametrize('stop', [KeyboardInterrupt, SystemExit])
def test_an_interruption_goes_through(stop):
    class Stopped(Net):
        def forward(self, x):
            raise stop

    with pytest.raises(stop):
        compress(Stopped())


def trained(model):
    model.train()
    for _ in range(2):
        model(torch.randn(4, 3, 64, 80))
    return model.eval()


def test_a_checkpoint_of_0_1_names_the_rule_that_restores_its_network():
    old = trained(compress(rules=[dict(TRANSFORM, pattern=r'attention|six\.1')])[0])
    state, image = copy.deepcopy(old.state_dict()), torch.randn(2, 3, 64, 80)
    with pytest.warns(UserWarning, match='Net: attention, six.1 must be learned again') as caught:
        compress()[0].load_state_dict(state)
    advice = next(str(warning.message) for warning in caught if 'rules' in str(warning.message))
    rule = eval(re.search(r'dict\(.*?\)', advice).group())
    restored, _ = compress(rules=[rule])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('error')
        restored.load_state_dict(state)
        assert torch.equal(restored.eval()(image), old(image))


def test_a_checkpoint_of_its_own_loads_in_silence():
    model = trained(compress()[0])
    other, _ = compress()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        other.load_state_dict(copy.deepcopy(model.state_dict()))
    image = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        assert torch.equal(other.eval()(image), model(image))


def test_a_state_without_values_loads():
    model, _ = compress()
    state = {key: value.to('meta') for key, value in trained(model).state_dict().items()}
    with torch.device('meta'):
        other = copy.deepcopy(model).to('meta')
    other.load_state_dict(state, assign=True)
    assert next(other.parameters()).is_meta


def test_the_stamp_of_an_integer_model_of_0_1_shows_the_difference():
    pytest.importorskip('mmengine')
    from mmwcc.checkpoint import read_stamp, write_stamp
    from mmwcc.compression import compare

    old, _ = compress(rules=[TRANSFORM], integer=True)
    checkpoint = dict(meta=dict(), state_dict=old.state_dict())
    write_stamp(checkpoint, old, dict())
    recorded = read_stamp(checkpoint)['layers']
    found = compare(old.state_dict(), compress(integer=True)[0], recorded)
    kinds = ('IntegerWaveletCompressedConv2d', 'IntegerConv2d')
    assert ('attention', 'type', *kinds) in found.states


def test_costs_are_those_of_the_dense_layer():
    pytest.importorskip('mmengine')
    from mmwcc.cost import count_cost

    model, _ = compress()
    layers = {layer.name: layer for layer in count_cost(model, (64, 96)).layers}
    assert (layers['attention'].kind, layers['attention'].macs) == ('quantized', 8 * 8)
    transformed, _ = compress(rules=[TRANSFORM])
    layers = {layer.name: layer for layer in count_cost(transformed, (64, 96)).layers}
    assert (layers['attention'].kind, layers['attention'].macs) == ('wcc', 16 * 8 * 8)
