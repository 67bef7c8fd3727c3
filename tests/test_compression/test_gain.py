"""What a compression gains: operations, what stays dense, the expected speed, and the warning."""

import json
import re
from itertools import product

import pytest
import torch
from torch import nn

pytest.importorskip('mmengine', reason='costs are counted by its complexity analysis')

from mmwcc.compression import compress_model, expected_gain  # noqa: E402
from mmwcc.compression.only_if_faster import SpeedTable  # noqa: E402
from mmwcc.layers import QuantConv2d  # noqa: E402

POINTWISE = dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5)
QUANTIZED = dict(
    pointwise=POINTWISE,
    other=dict(type='mmwcc.QuantConv2d'),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)


class Net(nn.Module):
    """A stem, 1x1 and 3x3 convolutions, attention without weights, and a linear layer."""

    def __init__(self, points=1):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.points = nn.Sequential(*(nn.Conv2d(16, 16, 1) for _ in range(points)))
        self.spatial = nn.Conv2d(16, 16, 3, padding=1)
        self.linear = nn.Linear(16, 4)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.spatial(self.points(self.stem(x)))
        batch, channels, *size = x.shape
        rows = x.flatten(2).transpose(1, 2)
        rows = (rows @ rows.transpose(1, 2)).softmax(-1) @ rows
        return self.last(self.linear(rows).transpose(1, 2).reshape(batch, 4, *size))


MACS = dict(  # for 32x32 images, which give maps of 16x16
    stem=3 * 16 * 9 * 256,
    point=16 * 16 * 256,
    spatial=16 * 16 * 9 * 256,
    attention=2 * 256 * 256 * 16,
    linear=16 * 4 * 256,
    last=4 * 2 * 256,
)


def compress(model, **changes):
    return compress_model(model, {**QUANTIZED, **changes}, input_shape=(32, 32), verbose=False)


@pytest.fixture
def table(tmp_path):
    """Write a table in which compression is twice as fast at half the coefficients."""
    rows = [
        dict(channels=c, out=o, size=size, speedup={'k1': 1.0, 'k0.5': 2.0})
        for c, o, size in product((4, 64), (4, 64), (8, 32))
    ]
    path = tmp_path / 'speed.json'
    about = dict(levels=3, cpu='Abacus', capability='BEADS', threads=2, dtype='float32')
    path.write_text(json.dumps(dict(environment=about, rows=rows)))
    return SpeedTable(path)


@pytest.mark.filterwarnings('ignore:Wavelets save only')
def test_operations_before_and_after():
    gain = compress(Net()).gain
    dense, quantized = sum(MACS.values()), MACS['point'] / 2 + MACS['spatial']
    assert gain.dense_macs == dense
    assert gain.cost.total.macs == dense - MACS['point'] / 2
    assert gain.reached == pytest.approx(MACS['point'] / dense)
    float_bops = 1024 * (dense - MACS['point'] - MACS['spatial'])
    assert gain.cost.total.bops == 64 * quantized + float_bops
    assert sum(part.bops for part in gain.dense_parts) == float_bops
    assert [(part.kind, part.layers, part.macs) for part in gain.dense_parts] == [
        ('products of Net', 1, MACS['attention']),
        ('Conv2d 3x3', 1, MACS['stem']),
        ('Linear', 1, MACS['linear']),
        ('Conv2d 1x1', 1, MACS['last']),
    ]
    spatial = next(part for part in gain.parts if part.kind == 'Conv2d 3x3')
    assert (spatial.layers, spatial.macs) == (2, MACS['stem'] + MACS['spatial'])


@pytest.mark.filterwarnings('ignore:Wavelets save only')
def test_the_report_ends_with_the_gain():
    report = compress(Net())
    text = str(report)
    assert text.endswith(str(report.gain)) and report.summary() in text
    lines = str(report.gain).splitlines()
    assert lines[0] == 'What this gains for an input of 1x3x32x32:'
    assert lines[1] == '  MACs   2.882 M -> 2.849 M (-1.1%); wavelets reach 2.3% of the dense MACs'
    assert lines[2].startswith('  BOPs   2.95 G -> 2.32 G (-21.4%), of these 0.00 G in transforms')
    assert lines[3].startswith(
        '  dense  2.28 G BOPs in full precision (98.3% of the remaining BOPs): products of Net '
        '92.6% (layers: 1), '
    )
    assert (
        lines[4].startswith('  speed  a slowdown: x0.')
        and 'an estimate from a table measured for' in lines[4]
    )
    assert compress_model(Net(), QUANTIZED, verbose=False).gain is None


@pytest.mark.filterwarnings('ignore:Wavelets save only')
def test_plain_data():
    gain = compress(Net()).gain
    content = json.loads(json.dumps(gain.to_dict()))
    assert content['input_shape'] == [1, 3, 32, 32]
    assert content['macs'] == [gain.dense_macs, gain.cost.total.macs]
    assert content['bops'][0] == 1024 * gain.dense_macs
    assert content['dense_parts'][0]['kind'] == 'products of Net'
    assert content['speed']['network'] == gain.speed.network


def test_speed_of_layers_and_network(table):
    model = Net()
    compress_model(model, QUANTIZED, verbose=False)
    speed = expected_gain(model, (32, 32), table=table).speed
    dense = sum(MACS.values())
    assert speed.layers == pytest.approx(2)
    assert speed.network == pytest.approx(dense / (dense - MACS['point'] / 2))
    assert speed.machine == 'float32 inference on Abacus BEADS, 2 threads'
    assert 'only_if_faster' not in str(speed)


def test_speed_is_that_of_the_table_of_the_config(table, tmp_path):
    wish = dict(input_shape=(32, 32), table=str(tmp_path / 'speed.json'))
    with pytest.warns(UserWarning, match='remaining bit operations'):
        gain = compress(Net(), only_if_faster=wish).gain
    assert gain.speed.machine.endswith('Abacus BEADS, 2 threads')


def test_transforms_that_were_not_measured_count_as_unchanged(table):
    model = Net(points=2)
    rules = [dict(pattern=r'points\.0', wavelet='db2')]
    compress_model(model, dict(QUANTIZED, rules=rules), verbose=False)
    speed = expected_gain(model, (32, 32), table=table).speed
    assert speed.layers == pytest.approx(2 / 1.5) and speed.unmeasured == 1
    assert ', 1 layers not measured;' in str(speed)


def test_slower_networks_are_pointed_to_only_if_faster(tmp_path):
    rows = [
        dict(channels=c, out=o, size=size, speedup={'k1': 0.5, 'k0.5': 0.5})
        for c, o, size in product((4, 64), (4, 64), (8, 32))
    ]
    path = tmp_path / 'slow.json'
    path.write_text(json.dumps(dict(environment=dict(levels=3), rows=rows)))
    model = Net()
    compress_model(model, QUANTIZED, verbose=False)
    speed = str(expected_gain(model, (32, 32), table=SpeedTable(path)).speed)
    assert speed.startswith('a slowdown: x0.50 in wavelet layers, ')
    assert speed.endswith(
        '; only_if_faster=dict(input_shape=(H, W)) in the compression dictionary '
        'leaves out the slower layers'
    )
    assert 'measured for float inference on a processor unknown, ? threads' in speed


def test_no_speed_is_promised_without_wavelets_or_for_integers():
    model = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(3)))
    assert compress(model, pointwise=dict(type='mmwcc.QuantConv2d')).gain.speed is None
    model = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(3)))
    gain = compress(model, integer=True).gain
    assert gain.speed is None and gain.reached == pytest.approx(1 / 3)
    assert gain.cost.layers[1].kind == 'wcc'


def spatial():
    """Return a network in which 3x3 convolutions have nearly all operations."""
    layers = [nn.Conv2d(16, 16, 3, padding=1) for _ in range(3)]
    return nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), *layers, nn.Conv2d(16, 2, 1))


def test_small_savings_are_warned_of_with_what_helps():
    with pytest.warns(UserWarning, match='Wavelets save only 1.8% of the MACs') as caught:
        gain = compress(spatial()).gain
    warning = str(caught[0].message)
    assert warning == gain.warning and warning in str(gain)
    assert 'They reach 3.5% of them; Conv2d 3x3 without wavelets has 95%' in warning
    assert 'separate=dict()' in warning and 'such as quant_w8a8' in warning
    with pytest.warns(UserWarning, match='Wavelets save only') as caught:
        compress(spatial(), weight_quant=None, act_quant=None)
    assert 'quant_w8a8' not in str(caught[0].message)


class Pointwise(nn.Module):
    """A network that consists of 1x1 convolutions but for its first and last layer."""

    def __init__(self, attention=None):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=4, padding=1)
        self.body = nn.Sequential(*(nn.Conv2d(32, 32, 1) for _ in range(10)))
        self.linear = nn.Linear(32, 512 if attention else 2)
        self.last = nn.Conv2d(32, 2, 1)

    def forward(self, x):
        x = self.body(self.stem(x))
        return self.last(x), self.linear(x.flatten(2).transpose(1, 2))


@pytest.mark.filterwarnings('error')
def test_no_warning_where_the_gain_is_large():
    gain = compress(Pointwise(), keep_dense=[]).gain
    assert gain.warning == '' and gain.reached > 0.8
    assert gain.cost.total.macs / gain.dense_macs < 0.6
    assert compress(Pointwise(), weight_quant=None, act_quant=None).gain.warning == ''


@pytest.mark.filterwarnings('error')
def test_no_warning_where_all_coefficients_are_kept_on_purpose():
    everything = dict(POINTWISE, keep_ratio=1.0)
    assert compress(Pointwise(), pointwise=everything, keep_dense=[]).gain.warning == ''


def test_keeping_nearly_everything_saves_little():
    with pytest.warns(UserWarning, match='Wavelets save only .* Lower keep_ratio to save more'):
        compress(Pointwise(), pointwise=dict(POINTWISE, keep_ratio=0.95))


def test_full_precision_that_remains_is_warned_of():
    with pytest.warns(UserWarning, match=r'\d\d% of the remaining .* most of them in Linear'):
        gain = compress(Pointwise(attention=True)).gain
    assert "linear=dict(type='mmwcc.QuantLinear')" in gain.warning
    with pytest.warns(UserWarning, match='Name fewer layers in keep_dense'):
        compress(Pointwise(), keep_dense=['first', 'last', r'body\.[3-9]'])


def test_maps_smaller_than_a_patch_on_this_input_are_named():
    model = Pointwise()
    compress_model(model, QUANTIZED, verbose=False)
    gain = expected_gain(model, (16, 16))
    assert gain.tiny == {f'body.{place}': 32 / 16 for place in range(10)}
    said = '10 wavelet layers have maps smaller than a patch on this input, which take up to 2.0'
    assert said in gain.warning
    (rule,) = re.findall(r'add dict\((.*)\) to the rules', gain.warning)
    other = Pointwise()
    rules = [eval(f'dict({rule})')]  # as the user copies it
    compress_model(other, dict(QUANTIZED, rules=rules, keep_dense=['last']), verbose=False)
    assert all(type(layer) is QuantConv2d for layer in other.body)
    assert expected_gain(model, (32, 32)).tiny == {}


def test_a_model_that_cannot_run_on_the_input_is_left_as_it_was():
    model = Net()
    with pytest.raises(ValueError, match='Net must run on an input of shape'):
        compress_model(model, QUANTIZED, input_shape=(5, 32, 32), verbose=False)
    assert all(type(conv) is nn.Conv2d for conv in (model.points[0], model.spatial))


def test_data_samples_and_other_values_are_handed_to_the_model():
    class Sampled(Pointwise):
        def forward(self, inputs, data_samples, scale=None):
            assert data_samples == ['a', 'b'] and scale is None
            return super().forward(inputs)

    model = Sampled()
    compress_model(model, QUANTIZED, verbose=False)
    images = torch.zeros(2, 3, 32, 32)
    gain = expected_gain(model, inputs=dict(inputs=images, data_samples=['a', 'b'], scale=None))
    assert gain.cost.input_shape == (2, 3, 32, 32)
    assert gain.dense_macs == expected_gain(model, inputs=(images, ['a', 'b'])).dense_macs


def test_inputs_do_not_change():
    class InPlace(nn.Sequential):
        def forward(self, x, extra):
            extra.clear()
            return super().forward(x.sub_(1.0))

    model = InPlace(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))
    compress_model(model, dict(pointwise=POINTWISE), verbose=False)
    images, extra = torch.rand(1, 3, 16, 16), [torch.ones(1)]
    before = images.clone()
    expected_gain(model, inputs=(images, extra))
    assert torch.equal(images, before) and len(extra) == 1


def test_wavelets_that_cost_more_are_not_called_a_saving():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))
    compress_model(model, dict(pointwise=dict(POINTWISE, keep_ratio=0.9)), verbose=False)
    gain = expected_gain(model, (9, 9))
    growth = gain.cost.total.macs / gain.dense_macs - 1
    assert growth > 0
    assert f'Wavelets cost more than they save: the MACs grow by {growth:.1%}.' in gain.warning
    assert 'save only' not in gain.warning


def test_layers_have_the_names_that_users_know():
    class Attentive(Pointwise):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(32, 2, batch_first=True)

        def forward(self, x):
            rows = self.body(self.stem(x)).flatten(2).transpose(1, 2)
            return self.attention(rows, rows, rows)[0]

    model = Attentive()
    report = compress_model(model, QUANTIZED, verbose=False)
    kinds = {part.kind for part in expected_gain(model, (32, 32)).dense_parts}
    assert 'products of MultiheadAttention' in kinds
    assert {layers.kind for layers in report.unhandled} == {'Linear', 'MultiheadAttention'}


def test_no_wavelet_in_the_end_is_said():
    model = nn.Sequential(*(nn.Conv2d(4, 4, 3) for _ in range(3)))
    report = compress_model(model, QUANTIZED, verbose=False)
    assert report.warning.startswith('No layer uses wavelets, because there is no 1x1 convolution')
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1))
    report = compress_model(model, dict(QUANTIZED, keep_dense=[]), verbose=False)
    assert report.warning.startswith('0 layers use wavelets in the end.')
    assert report.warning in str(report) and 'works on one pixel' in str(report)
    chosen = dict(QUANTIZED, rules=[dict(pattern=r'points.*', type='mmwcc.QuantConv2d')])
    for compression in (QUANTIZED, chosen):
        assert compress_model(Net(), compression, verbose=False).warning == ''
