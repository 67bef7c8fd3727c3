"""The divergence that compressing one layer causes."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmwcc.compression import compress_model
from mmwcc.post_training import Choice, Grid, LayerSensitivity, calibrate, measure_sensitivity
from mmwcc.post_training.divergence import divergence

COMPRESSION = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.25, levels=2),
    other=dict(type='mmwcc.QuantConv2d'),
    keep_dense=['last'],
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)
GRID = Grid(weight_bits=(8, 3), act_bits=(8, 3), keep_ratios=(1.0, 0.25))


class Network(nn.Module):
    """A residual block that works in place, a layer that is called twice and a branch that is not
    called.
    """

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.point = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 1),
        )
        self.twice, self.unused = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.relu, self.classify = nn.ReLU(inplace=True), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.relu(self.norm(self.stem(x)))
        y = self.point(x)
        y += x
        for _ in range(2):
            y = self.relu(self.twice(y))
        return 3 * self.classify(y)


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def batches():
    return [torch.randn(2, 3, 12, 17) for _ in range(2)]


def with_one_layer(network, name, batches, **choice):
    """Compress one layer of a network for good, calibrate it and compare, the plain way."""
    network = copy.deepcopy(network).eval()
    quantizers = {
        role: COMPRESSION[role] | dict(bits=choice[role]) if role in choice else None
        for role in ('weight_quant', 'act_quant')
    }
    kind = (
        dict(COMPRESSION['pointwise'], keep_ratio=choice.get('keep_ratio', 1.0))
        if choice.get('wavelets')
        else dict(type='mmwcc.QuantConv2d')
    )
    others = [
        other
        for other, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and other != name
    ]
    with torch.no_grad():
        expected = [network(x).log_softmax(1) for x in batches]
        compress_model(
            network,
            dict(pointwise=kind, other=kind, keep_dense=others, **quantizers),
            verbose=False,
        )
        if 'weight_quant' in choice or 'act_quant' in choice:
            calibrate(network, batches)
        return sum(
            F.kl_div(network(x).log_softmax(1), reference, log_target=True, reduction='none')
            .sum(1)
            .mean()
            for x, reference in zip(batches, expected, strict=True)
        ).item() / len(batches)


def test_every_quantity_equals_compressing_that_layer_alone(network, batches):
    stem, point, twice = measure_sensitivity(network, COMPRESSION, [torch.cat(batches)], grid=GRID)
    together = [torch.cat(batches)]
    assert [layer.name for layer in (stem, point, twice)] == ['stem', 'point', 'twice']
    for bits in (8, 3):
        for layer in (stem, point, twice):
            assert layer.weight_bits[bits] == pytest.approx(
                with_one_layer(network, layer.name, together, weight_quant=bits), rel=1e-3, abs=1e-7
            )
        for layer in (stem, point):
            assert layer.act_bits[bits] == pytest.approx(
                with_one_layer(network, layer.name, together, act_quant=bits), rel=1e-3, abs=1e-7
            )
        assert point.coefficient_bits[bits] == pytest.approx(
            with_one_layer(network, 'point', together, act_quant=bits, wavelets=True),
            rel=1e-3,
            abs=1e-7,
        )
    assert point.keep_ratio[1.0] == pytest.approx(0, abs=1e-6)
    assert point.keep_ratio[0.25] == pytest.approx(
        with_one_layer(network, 'point', together, wavelets=True, keep_ratio=0.25), rel=1e-3
    )
    assert point.keep_ratio[0.25] > 1e-3 and not stem.keep_ratio and not twice.coefficient_bits


def test_the_average_of_batches_and_the_callback(network, batches):
    seen = []
    both = measure_sensitivity(
        network, COMPRESSION, iter(batches), grid=GRID, skip=['stem'], on_layer=seen.append
    )
    assert [layer.name for layer in both] == ['point', 'twice'] and seen == both
    single = [
        measure_sensitivity(network, COMPRESSION, [x], grid=GRID, skip=['stem', 'twice'])[0]
        for x in batches
    ]
    assert both[0].keep_ratio[0.25] == pytest.approx(
        sum(one.keep_ratio[0.25] for one in single) / 2, rel=1e-6
    )


@pytest.mark.parametrize('batch_norm', [False, True])
def test_the_model_is_left_alone(network, batches, batch_norm):
    network.norm.eval()
    before = copy.deepcopy(network)
    measure_sensitivity(
        network, COMPRESSION, batches, grid=Grid((4,), (4,), (0.5,)), batch_norm=batch_norm
    )
    assert repr(network) == repr(before)
    assert [module.training for module in network.modules()] == [
        module.training for module in before.modules()
    ]
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), before.state_dict().values(), strict=True)
    )
    assert all(
        'forward' not in vars(module) and not module._forward_hooks for module in network.modules()
    )


def test_statistics_of_the_batch_undo_a_loss_of_scale(batches):
    # What BatchNorm takes out again does not count where its statistics will be estimated again.
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    fixed, batch = (
        measure_sensitivity(
            network, COMPRESSION, batches, grid=Grid((8,), (8,), (0.25,)), batch_norm=batch_norm
        )[0].keep_ratio[0.25]
        for batch_norm in (False, True)
    )
    assert batch != fixed and batch > 0


def test_layers_without_quantizers(network, batches):
    compression = dict(pointwise=COMPRESSION['pointwise'], keep_dense=['last'])
    (layer,) = measure_sensitivity(network, compression, batches, grid=Grid(keep_ratios=(0.5,)))
    assert (layer.weight_bits, layer.act_bits, layer.coefficient_bits) == (
        {32: 0.0},
        {32: 0.0},
        {32: 0.0},
    )
    assert list(layer.choices()) == [Choice(), Choice(keep_ratio=0.5)]


def test_parts_add_up():
    layer = LayerSensitivity('conv', {8: 1.0, 4: 2.0}, {8: 10.0}, {8: 20.0}, {0.5: 100.0})
    assert {choice: layer.divergence(choice) for choice in layer.choices()} == {
        Choice(8, 8): 11.0,
        Choice(4, 8): 12.0,
        Choice(8, 8, 0.5): 121.0,
        Choice(4, 8, 0.5): 122.0,
    }


def test_divergence_of_logits():
    a, b = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    expected = F.kl_div(b.log_softmax(1), a.softmax(1), reduction='none').sum(1).mean().item()
    assert divergence(a, (b,)) == pytest.approx(expected, rel=1e-5)
    assert divergence(a, a) == 0
    assert divergence(torch.tensor([[0.0, math.log(3)]]), torch.zeros(1, 2)) == pytest.approx(
        0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-5
    )


def test_divergence_of_several_outputs():
    reference = dict(scores=[torch.tensor([3.0, 4.0])], boxes=torch.tensor([[2.0]]))
    assert divergence(
        reference, dict(scores=[torch.tensor([3.0, 3.0])], boxes=torch.tensor([[1.0]]))
    ) == pytest.approx((1 / 25 + 1 / 4) / 2)


@pytest.mark.parametrize(
    'reference, output', [([], []), ('text', 'text'), (torch.zeros(1, 2), [torch.zeros(1)] * 2)]
)
def test_outputs_that_cannot_be_compared(reference, output):
    with pytest.raises(
        ValueError, match='must hold as many tensors as each other, and at least one'
    ):
        divergence(reference, output)


def test_bad_arguments(network, batches):
    with pytest.raises(ValueError, match='batches must hold at least one batch, got none'):
        measure_sensitivity(network, COMPRESSION, [])
    with pytest.raises(ValueError, match='compression must change a layer'):
        measure_sensitivity(network, {}, batches)
