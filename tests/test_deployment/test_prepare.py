"""What exportable makes of hooks and of weights that are computed."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from toy_networks import build

from mmwcc.deployment import exportable
from mmwcc.deployment.layers import ExportableConv2d, ExportableWaveletConv2d
from mmwcc.layers import QuantLinear
from mmwcc.maps import add_map_scales
from mmwcc.post_training import calibrate


def image():
    return torch.randn(1, 3, 32, 48)


def equal(model, x):
    network = exportable(model, x)
    torch.testing.assert_close(network(x), model(x), rtol=1e-4, atol=1e-4)
    return network


@pytest.mark.parametrize(
    'layer, kind',
    [('project', ExportableWaveletConv2d), ('depthwise', ExportableConv2d), ('stem', nn.Conv2d)],
)
def test_hooks_see_the_map_before_normalization(layer, kind):
    model, x = build(8), image()
    model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: 2 * output)
    network = equal(model, x)
    assert type(network.get_submodule(layer)) is kind
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == 1


def test_computed_weights_of_dense_layers_stay_as_they_are():
    model, x = build(8), image()
    nn.utils.spectral_norm(model.stem)
    with torch.no_grad():  # a weight that is part of a graph cannot be copied
        model.train()(x)
        network = equal(model.eval(), x)
    assert isinstance(network.norm, nn.BatchNorm2d) and isinstance(network.norm1, nn.Identity)


def test_a_convolution_with_a_forward_of_its_own_is_not_folded():

    class Doubling(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    model, x = build(8), image()
    model.stem = Doubling(3, 8, 3, stride=2, padding=1).eval()
    assert type(equal(model, x).stem) is Doubling


def test_computed_weights_of_compressed_layers_are_refused():
    model = build(8)
    prune.l1_unstructured(model.project, 'weight', amount=0.5)
    before = dict(model.named_modules())
    with pytest.raises(
        ValueError,
        match=r'weights of compressed layers must be parameters, got '
        r'project \(its weight is computed .*\. Make them perm',
    ):
        exportable(model, image())
    prune.remove(model.project, 'weight')
    equal(model, image())
    assert dict(model.named_modules()) == before


def test_scales_of_maps_must_be_learned_and_can_be_removed():
    model, x = build(8), image()
    scales = add_map_scales(model, (32, 48))
    if scales.plan.own:
        with pytest.raises(RuntimeError, match='every map must have learned its scale'):
            exportable(model, x)
    calibrate(model, [x], again=False)
    equal(model, x)
    assert model.map_scales is scales
    scales.leave(model)
    equal(model, x)


def test_compressed_linear_layers_are_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), QuantLinear(4 * 32 * 48, 2))
    with pytest.raises(
        ValueError,
        match=r'exportable: compressed linear layers cannot be exported yet, got 2\. Train a model',
    ):
        exportable(model, image())
