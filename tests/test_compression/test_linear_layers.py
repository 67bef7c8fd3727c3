"""The key ``linear``: which linear layers become what, and what else works with them."""

import copy

import pytest
import torch
from torch import nn

from mmwcc.compression import CompressionConfig, allow_dense, compress_model
from mmwcc.cost import count_cost
from mmwcc.diagnostics import LayerStats, dense_twin, eligible_layers, observe_inputs
from mmwcc.inference import integer_skeleton, to_integer
from mmwcc.layers import QuantConv2d, QuantLinear, WaveletCompressedConv2d, WaveletCompressedLinear
from mmwcc.model_tree import LayerState, compressed_layers, set_layer_state
from mmwcc.post_training import Grid, calibrate, measure_sensitivity
from mmwcc.post_training.divergence import divergence
from mmwcc.quantizers import learning

WAVELETS = dict(type='mmwcc.WaveletCompressedLinear', keep_ratio=0.25)
QUANTIZERS = dict(
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)
FULL = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5),
    other=dict(type='mmwcc.QuantConv2d'),
    linear=WAVELETS,
    **QUANTIZERS,
)


class Block(nn.Module):
    """A block that knows the height and width of its tokens."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x, hw_shape):
        return x + self.down(self.up(x).relu())


class Net(nn.Module):
    """Maps, tokens, queries, a weight that another module reads, and a predictor that is linear."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, stride=2)
        self.point = nn.Conv2d(8, 8, 1)
        self.on_map, self.block = nn.Linear(8, 8), Block()
        self.query, self.read = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.query_embed = nn.Parameter(torch.randn(2, 1, 5, 8))
        self.decode_head = nn.ModuleDict(dict(fc=nn.Linear(8, 8), cls=nn.Linear(8, 4)))

    def forward(self, x):
        x = self.point(self.stem(x)).permute(0, 2, 3, 1)
        x = self.on_map(x)
        tokens = self.block(x.flatten(1, 2), tuple(x.shape[1:3]))
        tokens = nn.functional.linear(tokens, self.read.weight)
        queries = self.query(self.query_embed).mean(0).expand(len(x), -1, -1)
        queries = queries + tokens[:, :5] + self.attention(queries, tokens, tokens)[0]
        return self.decode_head['cls'](self.decode_head['fc'](queries.flatten(0, 1)))


def compress(model=None, **changes):
    torch.manual_seed(1)
    model = model or Net()
    return model, compress_model(model, {**FULL, **changes}, verbose=False)


def ready(**changes):
    """Return a compressed network whose clips are learned, in eval mode."""
    model, _ = compress(**changes)
    calibrate(model, [torch.randn(2, 3, 32, 48)])
    return model.eval()


def test_each_linear_layer_becomes_what_suits_its_input():
    model, report = compress()
    after = {layer.name: (layer.after, layer.reason) for layer in report}
    quantized, no_maps = 'QuantLinear', 'its tokens, 10x8, lie on no known maps'
    assert after == {
        'stem': ('dense', "keep_dense 'first'"),
        'point': ('WaveletCompressedConv2d', ''),
        'on_map': ('WaveletCompressedLinear', ''),
        'block.up': ('WaveletCompressedLinear', ''),
        'block.down': ('WaveletCompressedLinear', ''),
        'query': (quantized, 'its input, 2x1x5x8, does not grow with the image as maps do'),
        'read': ('dense', 'never called when the model ran on an image'),
        'attention.out_proj': ('dense', 'nn.MultiheadAttention reads its weight'),
        'decode_head.fc': (quantized, no_maps.replace('10x8', '5x8')),
        'decode_head.cls': ('dense', "keep_dense 'last'"),
    }
    assert report.summary() == (
        '2 convolutions and 8 linear layers: 2 QuantLinear, 1 WaveletCompressedConv2d, '
        '3 WaveletCompressedLinear, 4 dense'
    )
    assert [layer.kind for layer in report.unhandled] == ['MultiheadAttention']


def test_without_the_key_linear_layers_stay_and_are_not_in_the_report():
    model, report = compress(linear=None, keep_dense=['first'])
    assert not any(isinstance(layer, QuantLinear) for layer in model.modules())
    assert [layer.name for layer in report] == ['stem', 'point']
    assert report.unhandled[0].kind == 'Linear' and report.unhandled[0].count == 8


def test_everything_kept_is_the_dense_network_at_every_size():
    dense = Net().eval()
    model, _ = compress(
        copy.deepcopy(dense),
        pointwise=None,
        other=None,
        linear=dict(WAVELETS, keep_ratio=1.0),
        weight_quant=None,
        act_quant=None,
    )
    for size in ((32, 48), (30, 22)):
        x = torch.randn(2, 3, *size)
        torch.testing.assert_close(model.eval()(x), dense(x), rtol=1e-4, atol=1e-5)


def test_a_rule_may_name_either_form_of_a_type():
    model, report = compress(
        rules=[
            dict(pattern=r'block\..*|point', type='mmwcc.QuantConv2d'),
            dict(pattern='on_map', keep_ratio=0.5, act_quant=dict(bits=4)),
            dict(pattern='query', type='mmwcc.WaveletCompressedLinear', keep_ratio=0.25),
            dict(pattern='decode_head.fc', dense=True),
        ]
    )
    assert type(model.point) is QuantConv2d and type(model.block.up) is QuantLinear
    state = LayerState.of(model.on_map)
    assert (state.keep_ratio, state.act_bits) == (0.5, 4)
    assert type(model.query) is WaveletCompressedLinear  # the rule insists
    assert {layer.name: layer.reason for layer in report}['decode_head.fc'] == 'rule'


def test_a_rule_for_linear_layers_needs_the_key():
    with pytest.raises(ValueError, match='matches linear layers, which only the key linear'):
        compress(linear=None, rules=[dict(pattern=r'block\..*', keep_ratio=0.5)])


def test_linear_predictors_are_named_in_keep_dense_like_others():
    model, report = compress(keep_dense=['on_map'])
    assert type(model.on_map) is nn.Linear and type(model.decode_head['cls']) is QuantLinear


def test_linear_layers_alone_can_be_compressed():
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.block, self.last = nn.Linear(3, 8), Block(), nn.Linear(8, 2)

        def forward(self, x):
            x = self.first(x.permute(0, 2, 3, 1))
            return self.last(self.block(x.flatten(1, 2), tuple(x.shape[1:3])))

    model = Mixer()
    report = compress_model(model, dict(linear=WAVELETS), verbose=False)
    assert report.summary() == (
        '0 convolutions and 4 linear layers: 2 WaveletCompressedLinear, 2 dense'
    )
    assert type(model.first) is type(model.last) is nn.Linear
    assert 'Mixer has no convolution that tells the channels' in report.notes[0]


class ConvNeXtBlock(nn.Module):
    """The block of ConvNeXt as mmpretrain builds it, with ``linear_pw_conv=True``."""

    def __init__(self, width=8):
        super().__init__()
        self.depthwise_conv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.pointwise_conv1 = nn.Linear(width, 4 * width)
        self.act, self.pointwise_conv2 = nn.GELU(), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x):
        y = self.norm(self.depthwise_conv(x).permute(0, 2, 3, 1))
        y = self.pointwise_conv2(self.act(self.pointwise_conv1(y)))
        return x + (y * self.gamma).permute(0, 3, 1, 2)


def test_the_block_of_convnext():
    dense = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), ConvNeXtBlock(), nn.Conv2d(8, 2, 1)).eval()
    model = copy.deepcopy(dense)
    compress_model(model, dict(linear=dict(WAVELETS, keep_ratio=1.0)), verbose=False)
    layers = compressed_layers(model)
    assert list(layers) == ['1.pointwise_conv1', '1.pointwise_conv2']
    assert {type(layer) for layer in layers.values()} == {WaveletCompressedLinear}
    x = torch.randn(2, 3, 52, 84)
    torch.testing.assert_close(model(x), dense(x), rtol=1e-4, atol=1e-5)


def test_the_option_to_multiply_dense_layers_where_that_is_fastest():
    model, _ = compress(
        pointwise=None,
        other=None,
        linear=dict(type='mmwcc.QuantLinear'),
        weight_quant=None,
        act_quant=None,
    )
    assert type(model.block.up) is QuantLinear and model.block.up.act_quant is None


@pytest.mark.parametrize(
    'changes, error, message',
    [
        (dict(linear='mmwcc.QuantLinear'), TypeError, 'compression: linear must be a dict or None'),
        (
            dict(linear=dict(type='mmwcc.QuantLinaer')),
            ValueError,
            "Did you mean 'mmwcc.QuantLinear",
        ),
        (
            dict(linear=dict(WAVELETS, levles=2)),
            ValueError,
            'WaveletCompressedLinear: unknown key .levles',
        ),
        (
            dict(linear=dict(type='mmwcc.QuantConv2d', weight_quant=None)),
            None,
            '',
        ),
        (dict(linear=dict(WAVELETS, keep_ratio=2)), ValueError, r'keep_ratio must be in \(0, 1\]'),
        (
            dict(rules=[dict(pattern='on_map', type='mmwcc.WConv')]),
            ValueError,
            'must have a registered type|is not a compressed linear layer',
        ),
    ],
)
def test_what_a_dictionary_may_say(changes, error, message):
    if error is None:
        assert type(compress(**changes)[0].block.up) is QuantLinear
        return
    with pytest.raises(error, match=message):
        compress(**changes)


def test_a_failed_conversion_leaves_the_network_as_it_was():
    model = Net()
    with pytest.raises(ValueError):
        compress(model, rules=[dict(pattern='block.up', keep_ratio=3)])
    with pytest.raises(ValueError, match='lean_activations'):  # after layers were replaced
        compress(model, lean_activations=dict(input_shape=(5, 32, 32)))
    assert type(model.on_map) is nn.Linear and not model.block._forward_pre_hooks


def test_what_a_run_cannot_reach_is_transformed_only_where_maps_are_announced():
    class Failing(Net):
        def forward(self, x):
            raise RuntimeError('not on images')

    model, report = compress(Failing())
    assert type(model.block.up) is WaveletCompressedLinear and type(model.on_map) is QuantLinear
    assert 'linear layers were not reached and have wavelets only inside modules' in report.notes[0]
    assert 'on_map, block.up' in report.notes[0]


def test_dense_weights_load_and_must_be_trained_first(monkeypatch):
    monkeypatch.setattr(learning, '_warned', set())  # a process warns once
    model, _ = compress()
    missing = model.load_state_dict(Net().state_dict(), strict=False)
    assert not missing.unexpected_keys and all('_quant.' in key for key in missing.missing_keys)
    with pytest.raises(RuntimeError, match='needs weights that were trained'):
        model.eval()(torch.randn(1, 3, 32, 48))
    allow_dense(model)
    with pytest.warns(UserWarning):
        model(torch.randn(1, 3, 32, 48))


def test_the_record_of_a_checkpoint_holds_linear_layers():
    trained = ready()
    same, _ = compress()
    same.load_state_dict(trained.state_dict())
    x = torch.randn(1, 3, 32, 48)
    torch.testing.assert_close(same.eval()(x), trained(x))
    other, _ = compress(linear=dict(WAVELETS, keep_ratio=0.5))
    other.load_state_dict(trained.state_dict())
    with pytest.warns(UserWarning, match='keep_ratio 0.25 in the checkpoint, 0.5 in the model'):
        other.eval()(x)
    without, _ = compress(linear=None, keep_dense=['first'])
    without.load_state_dict(trained.state_dict(), strict=False)
    with pytest.raises(RuntimeError, match='must compress what its checkpoint compresses'):
        without.eval()(x)


def test_schedules_and_copies_reach_linear_layers():
    model = ready()
    assert set_layer_state(model.block.up, dict(keep_ratio=0.5, act_bits=4))
    copied = copy.deepcopy(model)
    assert LayerState.of(copied.block.up).keep_ratio == 0.5
    x = torch.randn(1, 3, 20, 36)
    torch.testing.assert_close(copied(x), model(x))


def test_every_parameter_gets_a_gradient():
    model, _ = compress()
    model.train()(torch.randn(2, 3, 32, 48)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_distributed_training_takes_steps(tmp_path):
    distributed = torch.distributed
    store = f'file://{tmp_path}/store'
    distributed.init_process_group('gloo', store, world_size=1, rank=0)
    try:
        wrapped = nn.parallel.DistributedDataParallel(compress()[0].train())
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.01)
        for size in ((32, 48), (24, 40)):  # the second step needs all gradients of the first
            optimizer.zero_grad()
            wrapped(torch.randn(2, 3, *size)).square().mean().backward()
            optimizer.step()
    finally:
        distributed.destroy_process_group()
    assert wrapped.module.block.up.token_grid.sizes == ((12, 20),)


def test_an_average_of_weights_reads_its_own_maps():
    averages = pytest.importorskip('mmengine.model')
    model = ready()
    average = averages.ExponentialMovingAverage(model, momentum=0.5)
    average.update_parameters(model)
    x = torch.randn(1, 3, 20, 36)
    torch.testing.assert_close(average(x), model(x))
    assert average.module.block.up.token_grid is not model.block.up.token_grid


def test_autocast_reaches_linear_layers():
    model, x = ready(), torch.randn(1, 3, 32, 48)
    with torch.autocast('cpu', torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), model(x), rtol=0.1, atol=0.1)


def test_a_dense_twin_has_linear_layers_again():
    model = ready()
    twin = dense_twin(model)
    assert type(twin.block.up) is nn.Linear and twin.block.up.weight is model.block.up.weight
    assert twin(torch.randn(1, 3, 32, 48)).shape == (5, 4)


def test_statistics_and_inputs_are_those_of_the_maps():
    model = ready()
    seen = {}
    with observe_inputs(eligible_layers(model), lambda name, x: seen.update({name: x})):
        model(torch.randn(2, 3, 32, 48))
    assert seen['block.down'].shape == (2, 16, 16, 24)
    stats = LayerStats()
    flat = torch.ones(2, 16, 24, 8)
    stats.update(model.on_map, flat)
    assert stats.compute()['energy_kept'] == pytest.approx(1)
    assert {'act_clipped', 'weight_sqnr'} <= stats.compute().keys()


def test_the_sensitivity_to_the_keep_ratio_is_measured_on_the_maps():
    dense = Net().eval()
    batch = torch.randn(2, 3, 32, 48)
    measured = measure_sensitivity(
        dense,
        FULL,
        [batch],
        grid=Grid(weight_bits=(8,), act_bits=(8,), keep_ratios=(1.0, 0.25)),
        forward=lambda model, x: model(x),
    )
    layers = {layer.name: layer for layer in measured}
    assert layers['query'].keep_ratio == {}
    model, _ = compress(
        copy.deepcopy(dense),
        weight_quant=None,
        act_quant=None,
        rules=[dict(pattern=r'(?!block\.up).*', dense=True)],
    )
    model.eval()
    with torch.no_grad():
        expected = divergence(dense(batch), model(batch))
    assert layers['block.up'].keep_ratio[0.25] == pytest.approx(expected, rel=1e-3)
    assert layers['block.up'].keep_ratio[1.0] < 1e-3 * expected


def test_integers_compute_what_the_trained_network_does():
    model = ready()
    images = [torch.randn(1, 3, 32, 48), torch.randn(2, 3, 24, 16)]
    expected, cost = [model(x) for x in images], count_cost(model, (32, 48)).total.total_bops
    report = to_integer(model, verbose=False)
    after = {layer.name: layer.after for layer in report if 'Linear' in layer.before}
    assert after['block.up'] == 'IntegerWaveletCompressedLinear'
    assert 'IntegerLinear' in after.values()
    for x, y in zip(images, expected, strict=True):
        torch.testing.assert_close(model(x), y, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(copy.deepcopy(model)(x), model(x))
    assert count_cost(model, (32, 48)).total.total_bops == cost


def test_integer_weights_load_into_the_same_network():
    model, x = ready(), torch.randn(1, 3, 32, 48)
    to_integer(model, verbose=False)
    other, report = compress()
    integer_skeleton(other, report)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(x), model(x))


@pytest.mark.filterwarnings('ignore:0 layers use wavelets in the end')
def test_compressing_an_integer_network_keeps_what_announces_its_maps():
    model, x = ready(), torch.randn(1, 3, 24, 16)
    to_integer(model, verbose=False)
    expected = model(x)
    compress_model(model, FULL, verbose=False)
    assert model.block.up.token_grid is not None
    torch.testing.assert_close(model(x), expected)


def test_a_network_of_linear_layers_alone_has_an_integer_form():
    model = ready(pointwise=None, other=None)
    report = to_integer(model, verbose=False)
    assert 'Integer' in report.summary()


def test_the_parsed_dictionary_is_the_same_again():
    config = CompressionConfig.parse(FULL)
    assert config.linear == WAVELETS
    assert config.layer_config('a', eligible=True, linear=True)['type'] == WAVELETS['type']
    assert config.layer_config('a', eligible=True)['type'] == 'mmwcc.WaveletCompressedConv2d'


@pytest.mark.filterwarnings('ignore:0 layers use wavelets in the end')
def test_compressing_again_leaves_what_is_compressed():
    model, _ = compress()
    before = compressed_layers(model)
    report = compress_model(model, FULL, verbose=False)
    assert compressed_layers(model) == before
    assert {layer.reason for layer in report if layer.name in before} == {'compressed already'}
    assert isinstance(model.point, WaveletCompressedConv2d)
