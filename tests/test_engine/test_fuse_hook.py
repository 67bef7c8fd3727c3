"""The hook that fuses blocks when a test begins."""

import pytest
from torch import nn

pytest.importorskip('mmengine')

from mmwcc.compression import compress_model
from mmwcc.engine.hooks import FuseHook
from mmwcc.inference import FusedInvertedResidual
from mmwcc.registry import HOOKS


class _Runner:
    def __init__(self, model):
        self.model = model


def test_fuses_before_a_test_and_not_before_training_or_validation():
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    model = nn.Sequential(nn.Sequential(nn.Conv2d(4, 8, 1), depthwise, nn.Conv2d(8, 4, 1)))
    compress_model(
        model,
        dict(pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5), keep_dense=[]),
        verbose=False,
    )
    hook, runner = HOOKS.build(dict(type='mmwcc.FuseHook')), _Runner(model)
    assert isinstance(hook, FuseHook)
    for moment in ('before_train', 'before_val', 'before_val_epoch'):
        getattr(hook, moment)(runner)
    assert type(model[0]) is nn.Sequential and model.training
    hook.before_test(runner)
    assert isinstance(model[0], FusedInvertedResidual) and not model.training
