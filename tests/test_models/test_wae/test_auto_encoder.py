"""The auto-encoder: its arithmetic, sizes, losses, and where its weights come from."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import nn

from mmwcc.models import WAE, WAEEncoder
from mmwcc.models.wae.auto_encoder import to_pixels


def convolutions(*modules):
    return [
        layer for module in modules for layer in module.modules() if isinstance(layer, nn.Conv2d)
    ]


def test_encoder_is_the_published_network():
    encoder, x = WAEEncoder(), torch.rand(2, 3, 10, 12)
    first, second, third = convolutions(encoder.body)
    assert [layer.weight.shape for layer in (first, second, third)] == [
        (16, 3, 3, 3),
        (16, 16, 3, 3),
        (16, 16, 3, 3),
    ]
    y = x
    for layer in (first, second, third):
        y = F.conv2d(y, layer.weight, layer.bias, padding=1).relu()
    low, high = encoder(x)
    torch.testing.assert_close(
        low, F.conv2d(y, encoder.split.weight[:3], encoder.split.bias[:3], 2, 1)
    )
    torch.testing.assert_close(
        high, F.conv2d(y, encoder.split.weight[3:], encoder.split.bias[3:], 2, 1)
    )


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_inference_gives_what_training_does(memory_format):
    """Without gradients, images go through the encoder one by one."""
    encoder, x = WAEEncoder(), torch.rand(3, 3, 10, 12).contiguous(memory_format=memory_format)
    expected = encoder(x)
    with torch.no_grad():
        for wanted, got in zip(expected, encoder(x), strict=True):
            torch.testing.assert_close(got, wanted)
    with torch.no_grad():
        assert encoder(torch.rand(1, 3, 10, 12))[0].shape == (1, 3, 5, 6)


def test_decoders_are_the_published_network():
    wae = WAE()
    up, *rest = [layer for layer in wae.decoder_low.body if not isinstance(layer, nn.ReLU)]
    assert (up.weight.shape, up.stride) == ((3, 16, 4, 4), (2, 2))
    assert [layer.weight.shape for layer in rest] == [(16, 16, 3, 3), (16, 16, 3, 3), (3, 16, 3, 3)]
    low, high = torch.rand(2, 1, 3, 4, 5)
    y = F.conv_transpose2d(low, up.weight, up.bias, 2, 1).relu()
    for layer in rest[:2]:
        y = F.conv2d(y, layer.weight, layer.bias, padding=1).relu()
    y = F.conv2d(y, rest[2].weight, rest[2].bias, padding=1)
    torch.testing.assert_close(wae.decode(low, high, (8, 10)), y + wae.decoder_high(high))


@pytest.mark.parametrize('size', [(1, 1), (1, 2), (2, 2), (5, 7), (8, 9)])
def test_any_size(size):
    wae, x = WAE(), torch.rand(1, 3, *size)
    low, high = wae(x)
    assert low.shape == high.shape == (1, 3, -(-size[0] // 2), -(-size[1] // 2))
    assert wae.decode(low, high, size).shape == x.shape
    sum(wae(x, mode='loss').values()).backward()
    assert all(parameter.grad is not None for parameter in wae.parameters())


def test_losses_are_sums_over_an_image_and_means_over_the_batch():
    wae, x = WAE(high_weight=0.25), torch.rand(3, 3, 5, 6)
    low, high = wae(x)
    decoded = wae.decode(low, high, (5, 6))
    losses = wae(x, mode='loss')
    torch.testing.assert_close(losses['loss_reconstruction'], (x - decoded).square().sum() / 3)
    torch.testing.assert_close(losses['loss_high'], 0.25 * high.square().sum() / 3)
    assert WAE().high_weight == 1


def test_losses_do_not_overflow_in_half_precision():
    wae, x = WAE(), torch.full((1, 3, 64, 64), 100.0)
    with torch.autocast('cpu', torch.float16):
        losses = wae(x, mode='loss')
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())


def test_it_learns_to_give_images_back():
    wae = MODELS.build(dict(type='mmwcc.WAE'))
    wae.init_weights()
    x = F.interpolate(torch.randn(4, 3, 6, 6), scale_factor=4, mode='bilinear')
    optimizer = torch.optim.Adam(wae.parameters(), lr=3e-3)
    history = []
    for _ in range(120):
        loss = sum(wae(x, mode='loss').values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.1 * history[0]


def test_predict_gives_pixels_of_the_loader():
    wae = WAE(
        data_preprocessor=dict(
            type='mmwcc.ClsDataPreprocessor',
            mean=[10.0, 20.0, 30.0],
            std=[2.0, 2.0, 2.0],
            to_rgb=True,
        )
    )
    data = wae.data_preprocessor(dict(inputs=[torch.randint(0, 256, (3, 4, 6), dtype=torch.uint8)]))
    (sample,) = wae(data['inputs'], mode='predict')
    expected = 2 * sample.decoded + torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1)
    torch.testing.assert_close(sample.decoded_pixels, expected.flip(0).clamp(0, 255))
    assert sample.low.shape == sample.high.shape == (3, 2, 3)
    images = torch.rand(1, 3, 2, 2)
    torch.testing.assert_close(to_pixels(images, nn.Identity()), images)


def test_copies_and_pickles():
    wae, x = WAE(), torch.rand(1, 3, 4, 4)
    for copied in (copy.deepcopy(wae), pickle.loads(pickle.dumps(wae))):
        torch.testing.assert_close(copied(x)[1], wae(x)[1])


@pytest.mark.parametrize(
    'x',
    [torch.rand(1, 1, 4, 4), torch.rand(3, 4, 4), torch.rand(1, 3, 0, 4)],
    ids=['grey', 'no batch', 'no pixels'],
)
def test_other_inputs_are_refused(x):
    with pytest.raises(ValueError, match=r'WAE: the input must be images of shape \(B, 3, H, W\)'):
        WAE()(x, mode='loss')
    with pytest.raises(
        ValueError, match=r'WAEEncoder: the input must be images of shape \(B, 3, H, W\)'
    ):
        WAEEncoder()(x)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match='high_weight must not be negative, got -1'):
        WAE(high_weight=-1)
    with pytest.raises(ValueError, match="mode must be 'tensor', 'loss' or 'predict', got 'test'"):
        WAE()(torch.rand(1, 3, 2, 2), mode='test')


# Weights of stage 1


def pretrained(path, **kwargs):
    wae = WAE(init_cfg=dict(type='Pretrained', checkpoint=str(path), **kwargs))
    wae.init_weights()
    return wae


def test_weights_come_from_stage_one(tmp_path):
    before = WAE()
    torch.save(dict(state_dict=before.state_dict()), tmp_path / 'stage1.pth')
    torch.save(
        {f'decomposition.{key}': value for key, value in before.state_dict().items()},
        tmp_path / 'stage2.pth',
    )
    for wae in (
        pretrained(tmp_path / 'stage1.pth'),
        pretrained(tmp_path / 'stage2.pth', prefix='decomposition.'),
    ):
        assert all(
            torch.equal(value, before.state_dict()[key]) for key, value in wae.state_dict().items()
        )


def test_missing_checkpoint_of_stage_one(tmp_path):
    with pytest.raises(
        FileNotFoundError, match='a checkpoint of stage 1, got .*none.pth, which does not exist'
    ):
        pretrained(tmp_path / 'none.pth')


def test_checkpoint_of_something_else(tmp_path):
    torch.save(
        dict(state_dict={'encoder.split.weight': torch.zeros(6, 16, 3, 3)}), tmp_path / 'other.pth'
    )
    with pytest.raises(
        RuntimeError, match=r'without a fitting encoder.body.0.weight \(23 of 24 are missing\)'
    ):
        pretrained(tmp_path / 'other.pth')
    torch.save(dict(state_dict=WAE(channels=8).state_dict()), tmp_path / 'narrow.pth')
    with pytest.raises(RuntimeError, match='without a fitting encoder.body.0.weight'):
        pretrained(tmp_path / 'narrow.pth')
