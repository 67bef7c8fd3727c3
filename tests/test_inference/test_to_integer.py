"""Conversion of a trained model to integers, and building a model for a converted checkpoint."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.inference import IntegerConv2d, IntegerLayer, IntegerWaveletCompressedConv2d, to_integer
from mmwcc.layers import QuantConv2d
from mmwcc.model_tree import LayerState, compressed_layers
from mmwcc.post_training import calibrate

QUANTIZED = dict(
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)
FULL = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5),
    other=dict(type='mmwcc.QuantConv2d'),
    **QUANTIZED,
    rules=[
        dict(pattern='expand', type='mmwcc.QuantConv2d'),
        dict(pattern='wide', act_quant=dict(bits=16)),
        dict(pattern='plain', act_quant=None),
    ],
)


class Net(nn.Module):
    """A stem, 1x1 convolutions of which one is used twice, a depthwise and a last one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.expand = nn.Conv2d(8, 16, 1, bias=False)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.project = nn.Conv2d(16, 8, 1)
        self.shared = nn.Conv2d(8, 8, 1)
        self.again = self.shared
        self.wide = nn.Conv2d(8, 8, 1)
        self.plain = nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.depthwise(self.expand(self.stem(x).relu()).relu())
        x = self.again(self.shared(self.project(x)))
        return self.last(self.plain(self.wide(x)))


def images(seed=0, size=(40, 33)):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def trained():
    model = Net()
    compress_model(model, FULL, verbose=False)
    model(images())  # the first training batch calibrates
    return model.eval()


def test_layers_of_at_most_eight_bits_are_converted(trained):
    report = to_integer(trained, verbose=False)
    kinds = {layer.name: (layer.before, layer.after, layer.reason) for layer in report}
    assert kinds == dict(
        stem=('Conv2d', 'Conv2d', 'not a quantized convolution'),
        expand=('QuantConv2d', 'IntegerConv2d', ''),
        depthwise=(
            'QuantConv2d',
            'QuantConv2d',
            'not a 1x1 convolution without padding and groups',
        ),
        project=('WaveletCompressedConv2d', 'IntegerWaveletCompressedConv2d', ''),
        shared=('WaveletCompressedConv2d', 'IntegerWaveletCompressedConv2d', ''),
        again=('WaveletCompressedConv2d', 'IntegerWaveletCompressedConv2d', ''),
        wide=('WaveletCompressedConv2d', 'WaveletCompressedConv2d', 'activations of 16 bits'),
        plain=('WaveletCompressedConv2d', 'WaveletCompressedConv2d', 'activations not quantized'),
        last=('Conv2d', 'Conv2d', 'not a quantized convolution'),
    )
    assert (
        type(trained.expand) is IntegerConv2d
        and type(trained.project) is IntegerWaveletCompressedConv2d
    )
    assert trained.shared is trained.again
    assert report[1].weight_bits == report[1].act_bits == 8 and report[3].keep_ratio == 0.5
    assert report.summary() == (
        '9 convolutions: 2 Conv2d, 1 IntegerConv2d, 3 IntegerWaveletCompressedConv2d, '
        '1 QuantConv2d, 2 WaveletCompressedConv2d'
    )


def test_the_report_is_printed(trained, capsys, monkeypatch):
    monkeypatch.delitem(__import__('sys').modules, 'mmengine.logging', raising=False)
    to_integer(trained)
    output = capsys.readouterr().out
    assert output.startswith('Converted Net to integers:') and 'activations of 16 bits' in output


def test_each_layer_and_the_whole_compute_what_the_trained_ones_do(trained):
    seen, x = {}, images(1)
    hooks = [
        layer.register_forward_hook(
            lambda _, args, y, name=name: seen.__setitem__(name, (args[0], y))
        )
        for name, layer in compressed_layers(trained).items()
    ]
    expected = trained(x)
    for hook in hooks:
        hook.remove()
    model = copy.deepcopy(trained)
    to_integer(model, verbose=False)
    for name, (values, y) in seen.items():
        torch.testing.assert_close(compressed_layers(model)[name](values), y, rtol=1e-5, atol=1e-5)
    step = model.project.scale.max() * 127
    assert (
        model(x) - expected
    ).abs().max() < step  # a value at the edge of two levels may move by one of them


def test_again_with_copies_pickle_and_a_second_conversion(trained):
    to_integer(trained, verbose=False)
    x = images()
    expected = trained(x)
    for other in (copy.deepcopy(trained), pickle.loads(pickle.dumps(trained))):
        assert torch.equal(other(x), expected)
    with pytest.raises(
        ValueError, match='must have 1x1 layers with weights and activations of 8 bits or fewer'
    ):
        to_integer(trained)


def test_integer_layers_are_compressed_layers(trained):
    to_integer(trained, verbose=False)
    layers = compressed_layers(trained)
    assert isinstance(layers['expand'], IntegerLayer) and isinstance(
        layers['depthwise'], QuantConv2d
    )
    assert LayerState.of(layers['project']).to_dict() == dict(
        type='IntegerWaveletCompressedConv2d',
        keep_ratio=0.5,
        levels=3,
        wavelet='haar',
        selection='energy',
    )


def test_a_checkpoint_fills_a_model_built_for_it(trained):
    to_integer(trained, verbose=False)
    model = Net()
    report = compress_model(model, dict(FULL, integer=True), verbose=False)
    assert {layer.name: layer.after for layer in report}[
        'project'
    ] == 'IntegerWaveletCompressedConv2d'
    assert {layer.name: layer.after for layer in report}['stem'] == 'dense'
    assert model.shared is model.again and set(model.state_dict()) == set(trained.state_dict())
    with pytest.raises(
        RuntimeError, match='IntegerConv2d: the layer must have weights, got none so far'
    ):
        model.eval()(images())
    model.load_state_dict(trained.state_dict())
    x = images(2)
    assert torch.equal(model(x), trained(x))


def test_weights_take_a_quarter_of_the_bytes():
    model = nn.Sequential(
        nn.Conv2d(3, 256, 1), nn.Conv2d(256, 512, 1), nn.Conv2d(512, 256, 1), nn.Conv2d(256, 2, 1)
    )
    compress_model(model, FULL | dict(rules=[]), verbose=False)
    model(images())

    def size():
        return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())

    before = size()
    to_integer(model, verbose=False)
    assert size() < 0.27 * before


def integer_net():
    model = Net()
    compress_model(model, FULL, verbose=False)
    model(images())
    to_integer(model.eval(), verbose=False)
    return model


def test_compiles():
    torch._dynamo.reset()
    model, x = integer_net(), images(3)
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split('.')[:2])) < (2, 5),
    reason='torch 2.4 exports no part that turns autocast off',
)
def test_exports():
    model, x = integer_net(), images(3)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))


def test_nothing_is_converted_if_something_was_not_learned():
    model = Net()
    compress_model(model, FULL, verbose=False)
    with pytest.raises(
        RuntimeError,
        match='to_integer: quantizers must have learned their clips, got layers that '
        'are not initialized: expand, project, shared, again. Load a compressed',
    ):
        to_integer(model)
    model(images())
    model.project.weight.data[0] = float('nan')
    with pytest.raises(
        ValueError, match='IntegerWaveletCompressedConv2d: the weights must be numbers'
    ):
        to_integer(model)
    assert not any(isinstance(module, IntegerLayer) for module in model.modules())


def test_models_without_anything_to_convert():
    with pytest.raises(
        ValueError,
        match='to_integer: the model must have 1x1 layers .* got Net without one among its '
        '9 layers',
    ):
        to_integer(Net())
    with pytest.raises(
        ValueError,
        match='to_integer: the model must contain the layers to convert, got a QuantConv2d',
    ):
        to_integer(QuantConv2d(4, 4, 1, **QUANTIZED))
    with pytest.raises(ValueError, match='compression: integer=True needs 1x1 layers'):
        compress_model(Net(), dict(FULL, act_quant=None, rules=[], integer=True))
    for wrong in ('yes', dict(keep_float='expand')):
        with pytest.raises(
            TypeError, match='compression: integer must be True, False or dict.keep_float='
        ):
            compress_model(Net(), dict(FULL, integer=wrong))
    with pytest.raises(
        ValueError, match="compression integer: unknown key 'keep'. Known keys: keep_float"
    ):
        compress_model(Net(), dict(FULL, integer=dict(keep=[])))
    with pytest.raises(ValueError, match="the keep_float entry 'depthwise' matches no convolution"):
        compress_model(Net(), dict(FULL, integer=dict(keep_float=['depthwise'])))


class WithAuxiliary(Net):
    """A network with a head that only training runs."""

    def __init__(self):
        super().__init__()
        self.auxiliary = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        y = super().forward(x)
        return (y, self.auxiliary(self.stem(x))) if self.training else y


@pytest.fixture
def calibrated():
    model = WithAuxiliary()
    compress_model(model, dict(FULL, keep_dense=['first']), verbose=False)
    calibrate(model.eval(), [images()])
    return model


def test_a_branch_that_never_ran_stays_and_is_named(calibrated):
    expected = calibrated(images(1))
    with pytest.warns(
        UserWarning, match='to_integer: auxiliary stay as they are, because they never ran'
    ):
        report = to_integer(calibrated, verbose=False)
    kinds = {layer.name: (layer.after, layer.reason) for layer in report}
    assert kinds['auxiliary'] == ('WaveletCompressedConv2d', 'never ran: its clips are not learned')
    assert kinds['project'] == ('IntegerWaveletCompressedConv2d', '')
    torch.testing.assert_close(calibrated(images(1)), expected, rtol=1e-3, atol=1e-4)
    fresh = WithAuxiliary()
    compress_model(
        fresh,
        dict(FULL, keep_dense=['first'], integer=dict(keep_float=['auxiliary'])),
        verbose=False,
    )
    fresh.load_state_dict(calibrated.state_dict())
    assert torch.equal(fresh.eval()(images(1)), calibrated(images(1)))


def test_a_float_checkpoint_does_not_fill_an_integer_model(trained):
    fresh = Net()
    compress_model(fresh, dict(FULL, integer=True), verbose=False)
    with pytest.raises(RuntimeError, match='an integer model needs an integer checkpoint, got one'):
        fresh.load_state_dict(trained.state_dict())


def test_weights_of_zeros_and_dead_inputs_accept_any_clip():
    model = Net()
    nn.init.zeros_(
        model.project.weight
    )  # and so the input of `shared` is the bias of `project`, which is zero too
    nn.init.zeros_(model.project.bias)
    nn.init.zeros_(model.shared.bias)
    compress_model(model, FULL, verbose=False)
    model(images())
    assert model.project.unlearned() == model.shared.unlearned() == []
    with torch.no_grad():
        expected = model.eval()(images(1))
        report = to_integer(model, verbose=False)
        assert {layer.after for layer in report if layer.name in ('project', 'shared')} == {
            'IntegerWaveletCompressedConv2d'
        }
        torch.testing.assert_close(model(images(1)), expected)


def test_deeplab_on_mobilenet():
    """The paper's network at 8/8 bits and a quarter of the coefficients."""
    pytest.importorskip('mmseg', exc_type=ImportError)
    from pathlib import Path

    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    import mmwcc  # noqa: F401

    folder = Path(__file__).parents[2] / 'configs' / 'wcc'
    config = Config.fromfile(
        folder / 'deeplabv3plus_mobilenetv2-os16_wcc-w8a8-k25_400i_camvid-256x256.py'
    )
    init_default_scope('mmseg')
    config.model.pretrained = None
    model = MODELS.build(config.model)
    with torch.no_grad():
        for seed in range(3):
            model.train()(
                nn.functional.interpolate(images(seed, (16, 16)), size=(128, 128), mode='bilinear')
            )
        model.eval()
        x, seen = (
            nn.functional.interpolate(images(9, (16, 16)), size=(128, 160), mode='bilinear'),
            {},
        )
        for name, layer in compressed_layers(model).items():
            layer.register_forward_hook(
                lambda _, args, y, name=name: seen.__setitem__(name, (args[0], y))
            )
        expected = model(x)
        report = to_integer(model, verbose=False)
        assert sum(layer.after.startswith('Integer') for layer in report) == 41
        layers = {
            name: layer
            for name, layer in compressed_layers(model).items()
            if isinstance(layer, IntegerLayer)
        }
        assert len(layers) == 41
        for name, layer in layers.items():
            values, y = seen[name]
            assert (layer(values) - y).abs().max() <= 1e-5 * y.abs().max(), name
        got = model(x)
    assert (got.argmax(1) == expected.argmax(1)).float().mean() > 0.99
    assert (got - expected).abs().mean() < 0.02 * expected.std()
