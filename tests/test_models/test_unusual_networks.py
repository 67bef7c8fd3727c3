"""Heads and necks of OpenMMLab that once broke in their first step of training."""

import copy

import pytest
import torch

from mmwcc.compression import compress_model

pytest.importorskip('mmseg', exc_type=ImportError)
pytest.importorskip('mmdet', exc_type=ImportError)

CONFIG = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5, levels=2),
    other=dict(type='mmwcc.QuantConv2d'),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
    keep_dense=[],
)


def compressed(module):
    compress_model(module, copy.deepcopy(CONFIG), verbose=False)
    return module.train()


def test_a_convolution_that_never_trains_has_clips_that_do_not_either():
    """EMANet's: DistributedDataParallel refuses parameters that ask for gradients and get none."""
    from mmseg.models.decode_heads import EMAHead

    head = compressed(
        EMAHead(
            in_channels=8,
            in_index=0,
            channels=8,
            ema_channels=8,
            num_bases=4,
            num_stages=2,
            num_classes=3,
            concat_input=True,
            loss_decode=dict(type='mmseg.CrossEntropyLoss'),
        )
    )
    head.forward([torch.randn(2, 8, 12, 12)]).square().mean().backward()
    assert not any(parameter.requires_grad for parameter in head.ema_mid_conv.parameters())
    assert all(p.grad is not None for p in head.parameters() if p.requires_grad)


def test_a_convolution_that_is_shared_between_levels():
    """DyHead's: it sees several feature maps before one backward pass."""
    from mmdet.models.necks import DyHead

    neck = compressed(DyHead(in_channels=16, out_channels=16, num_blocks=1, zero_init_offset=True))
    levels = [torch.zeros(2, 16, 16, 16), torch.randn(2, 16, 8, 8), torch.randn(2, 16, 4, 4)]
    sum(level.square().mean() for level in neck(levels)).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in neck.parameters())
