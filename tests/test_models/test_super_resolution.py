"""EDSR, the model around it, its compressed twin, and what the paper says it costs."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.structures import BaseDataElement

from mmwcc.cost import count_cost
from mmwcc.layers import QuantConv2d, SeparableConv2d, WaveletCompressedConv2d
from mmwcc.model_tree.compressed import compressed_layers
from mmwcc.models import SRDataPreprocessor
from mmwcc.presets import compress

pytest.importorskip('mmcv')
SEPARABLE = dict(type='mmwcc.SeparableConv2d')
HEAD_AND_TAIL = ['first', r'generator\.upsample\..*', 'last']


def config(separable=True, **changes):
    generator = dict(
        type='mmwcc.EDSR', mid_channels=8, num_blocks=2, conv_cfg=SEPARABLE if separable else None
    )
    generator.update(
        {
            key: changes.pop(key)
            for key in ('scale', 'mid_channels', 'num_blocks', 'res_scale')
            if key in changes
        }
    )
    return dict(type='mmwcc.SuperResolver', generator=generator, **changes)


def build(*args, **changes):
    return ROOT_MODELS.build(config(*args, **changes))


def compressed(preset='wcc_w8a8_k50', **changes):
    return ROOT_MODELS.build(compress(config(**changes), preset, keep_dense=HEAD_AND_TAIL))


def data(scale=2, count=2, size=(12, 10)):
    height, width = size
    return dict(
        inputs=[torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(count)],
        data_samples=[
            BaseDataElement(
                gt_img=torch.randint(0, 256, (3, scale * height, scale * width), dtype=torch.uint8)
            )
            for _ in range(count)
        ],
    )


@pytest.mark.parametrize('separable', [False, True])
@pytest.mark.parametrize('scale', [2, 3, 4])
def test_shapes(scale, separable):
    assert build(separable, scale=scale)(torch.rand(2, 3, 7, 9)).shape == (
        2,
        3,
        7 * scale,
        9 * scale,
    )


def test_unknown_scale_is_refused():
    with pytest.raises(ValueError, match='EDSR: scale must be 2, 3 or 4, got 5'):
        build(scale=5)


def test_the_network_written_out():
    net, x = (
        build(False, res_scale=0.5).generator.double(),
        torch.randn(1, 3, 5, 6, dtype=torch.float64),
    )

    def conv(layer, x):
        return F.conv2d(x, layer.weight, layer.bias, padding=1)

    first = conv(net.conv_first, x)
    body = first
    for block in net.body:
        body = body + 0.5 * conv(block.conv2, conv(block.conv1, body).relu())
    body = first + conv(net.conv_after_body, body)
    expected = conv(net.conv_last, F.pixel_shuffle(conv(net.upsample[0].upsample_conv, body), 2))
    torch.testing.assert_close(net(x), expected)


def test_baseline_has_the_published_size_and_names():
    """1.37 M parameters at x2; layers are called as in mmagic's checkpoints."""
    net = ROOT_MODELS.build(dict(type='mmwcc.EDSR'))
    assert sum(parameter.numel() for parameter in net.parameters()) == 1_369_859
    assert {key.rpartition('.')[0] for key in net.state_dict()} == {
        'conv_first',
        'conv_after_body',
        'upsample.0.upsample_conv',
        'conv_last',
        *(f'body.{i}.conv{j}' for i in range(16) for j in (1, 2)),
    }


def test_dense_checkpoints_load_into_the_separable_network():
    from mmengine.runner.checkpoint import load_state_dict

    dense, model = build(False), build(True)
    load_state_dict(model, dense.state_dict(), strict=True)  # mmengine has a loader of its own
    ours, theirs = (
        model.generator.body[1].conv2,
        SeparableConv2d.from_conv2d(dense.generator.body[1].conv2),
    )
    torch.testing.assert_close(ours.pointwise_conv.weight, theirs.pointwise_conv.weight)
    assert torch.equal(model.generator.conv_last.weight, dense.generator.conv_last.weight)


def test_loss_by_hand():
    model, batch = build(), data()
    ready = model.data_preprocessor(batch, training=True)
    (loss,) = model(**ready, mode='loss').values()
    original = torch.stack([sample.gt_img for sample in batch['data_samples']]).float()
    mean = 255 * torch.tensor([0.4488, 0.4371, 0.4040]).view(3, 1, 1)
    expected = (model(ready['inputs']) - (original - mean) / 255).abs().mean()
    torch.testing.assert_close(loss, expected)
    double = build(pixel_loss=dict(type='TwiceSquaredError'))
    double.load_state_dict(model.state_dict())
    torch.testing.assert_close(
        double(**ready, mode='loss')['loss_pixel'],
        2 * (model(ready['inputs']) - (original - mean) / 255).square().mean(),
    )


@ROOT_MODELS.register_module(force=True)
class TwiceSquaredError(torch.nn.Module):
    def forward(self, pred, target):
        return 2 * F.mse_loss(pred, target)


def test_predictions_are_pixels():
    model, batch = build().eval(), data()
    ready = model.data_preprocessor(batch)
    predicted = model(**ready, mode='predict')
    pixels = 255 * model(ready['inputs']) + 255 * torch.tensor([0.4488, 0.4371, 0.4040]).view(
        3, 1, 1
    )
    for sample, expected, original in zip(predicted, pixels, batch['data_samples'], strict=True):
        assert sample.pred_img.dtype == torch.uint8
        assert (sample.pred_img - expected.clamp(0, 255)).abs().max() <= 0.501
        assert torch.equal(sample.gt_img, original.gt_img)
    assert set(model(ready['inputs'], mode='predict')[0].keys()) == {'pred_img'}


def test_self_ensemble_does_not_change_under_the_eight_symmetries():
    plain, model = build().eval(), build(self_ensemble=True).eval()
    x = torch.rand(1, 3, 6, 9)
    with torch.no_grad():
        ensemble = model._ensemble(x)
        for turns in range(4):
            for mirror in (False, True):

                def move(image, turns=turns, mirror=mirror):
                    image = image.rot90(turns, (2, 3))
                    return image.flip(3) if mirror else image

                torch.testing.assert_close(
                    model._ensemble(move(x)), move(ensemble), rtol=1e-4, atol=1e-5
                )
                assert (mirror, turns) == (False, 0) or not torch.allclose(
                    plain(move(x)), move(plain(x)), atol=1e-3
                )
    pixels = model.data_preprocessor.to_pixels(ensemble).clamp(0, 255).round().byte()
    assert torch.equal(model(x, mode='predict')[0].pred_img, pixels[0])


def test_one_training_step_trains_everything():
    from mmengine.optim import OptimWrapper

    for model in (build(), compressed()):
        before = {key: value.detach().clone() for key, value in model.named_parameters()}
        model.train_step(data(), OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0)))
        assert not [
            key for key, value in model.named_parameters() if torch.equal(before[key], value)
        ]


def test_training_lowers_the_loss():
    from mmengine.optim import OptimWrapper

    torch.manual_seed(0)
    model, batch = build(), data(count=1)
    optimizer = OptimWrapper(torch.optim.Adam(model.parameters(), lr=1e-2))
    losses = [model.train_step(copy.deepcopy(batch), optimizer)['loss'].item() for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]


def test_compressed_twin():
    model, dense = compressed(), build()
    assert type(model) is type(dense)
    layers = compressed_layers(model)
    assert len(layers) == 2 * (2 * 2 + 1)
    assert all(
        type(layer) is (WaveletCompressedConv2d if name.endswith('pointwise_conv') else QuantConv2d)
        for name, layer in layers.items()
    )
    missing = model.load_state_dict(dense.state_dict(), strict=False)
    assert not missing.unexpected_keys and all('_quant.' in key for key in missing.missing_keys)
    whole = ROOT_MODELS.build(
        compress(config(), 'wcc_fp_k50', keep_dense=HEAD_AND_TAIL, pointwise=dict(keep_ratio=1.0))
    )
    whole.load_state_dict(dense.state_dict())
    x = torch.rand(1, 3, 13, 10)
    torch.testing.assert_close(whole(x), dense(x), rtol=1e-4, atol=1e-5)


def test_the_switch_separates_a_dense_network_to_the_same_layers():
    switched = ROOT_MODELS.build(
        compress(config(False), 'wcc_w8a8_k50', keep_dense=HEAD_AND_TAIL, separate=dict(init='svd'))
    )
    assert switched.state_dict().keys() == compressed().state_dict().keys()


def test_checkpoints_copies_and_pickles():
    model = compressed().train()
    ready = model.data_preprocessor(data())
    model(**ready, mode='loss')
    other = compressed()
    other.load_state_dict(model.state_dict())
    for twin in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.eval()(ready['inputs']), model.eval()(ready['inputs']))


def test_originals_of_another_scale_are_refused():
    model = build(scale=3)
    with pytest.raises(
        ValueError,
        match=r'gt_img must have the size that the network returns, got \(24, 20\) instead',
    ):
        model(**model.data_preprocessor(data(scale=2)), mode='loss')


def test_unknown_mode_is_refused():
    with pytest.raises(
        ValueError, match="SuperResolver: mode must be 'tensor', 'loss' or 'predict', got 'test'"
    ):
        build()(torch.rand(1, 3, 4, 4), mode='test')


def test_preprocessor_undoes_itself_and_refuses_mixed_sizes():
    preprocess = SRDataPreprocessor(mean=[10.0, 20, 30], std=[2.0, 2, 4])
    pixels = torch.randint(0, 256, (1, 3, 4, 5)).float()
    ready = preprocess(dict(inputs=pixels))['inputs']
    torch.testing.assert_close(ready, preprocess.from_pixels(pixels))
    torch.testing.assert_close(preprocess.to_pixels(ready), pixels)
    with pytest.raises(
        ValueError, match='SRDataPreprocessor: the images of a batch must have one size'
    ):
        preprocess(dict(inputs=[torch.zeros(3, 2, 2), torch.zeros(3, 2, 3)]))


@pytest.mark.parametrize(
    ('preset', 'separable', 'published'),
    [
        (None, False, 975838.04448768),
        (None, True, 123673.91883264),
        ('wcc_fp_k50', True, 70016.5914624),
        ('quant_w8a8', True, 7729.61992704),
        ('wcc_w8a8_k50', True, 4480.26771456),
    ],
)
def test_published_cost(preset, separable, published):
    """Table 4: G BOPs of the 33 convolutions of the body on 1020 x 768 pixels, by the paper's
    convention.
    """
    network = dict(mid_channels=64, num_blocks=16)
    model = build(separable, **network) if preset is None else compressed(preset, **network)
    # Counts are proportional to the pixels by this convention, so a 272nd of them is enough.
    report = count_cost(model, (60, 48), convention='paper')
    body = [
        layer for layer in report.layers if '.body.' in layer.name or 'after_body' in layer.name
    ]
    assert len(body) == 33 * (1 + separable)
    assert 272 * sum(layer.total_bops for layer in body) / 1e9 == pytest.approx(
        published, rel=1e-12
    )
