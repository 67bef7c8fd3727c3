"""Recordings of networks: the same values, without the code of the layers."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.inference import record, to_integer
from mmwcc.maps import add_map_scales
from mmwcc.post_training import calibrate
from mmwcc.presets import preset


class Block(nn.Module):
    """A residual block, a concatenation of three maps, pooling, resizing and two outputs."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = (nn.Conv2d(i, 8, 3, padding=1) for i in (3, 8, 8))
        self.last = nn.Conv2d(24, 4, 1)

    def forward(self, x):
        x = self.stem(x).relu_()
        y = x + self.two(self.one(x).relu_())
        joined = torch.cat([x, y, nn.functional.max_pool2d(y, 3, 1, 1)], 1)
        large = nn.functional.interpolate(joined, scale_factor=2)
        first, rest = self.last(large).split([1, 3], dim=1)
        return first, dict(rest=rest, mean=joined.mean((2, 3)))


def integer_network():
    torch.manual_seed(0)
    model = Block().eval()
    compress_model(model, preset('quant_channel_w8a8', keep_dense=['last']), verbose=False)
    images = [torch.randn(1, 3, 16, 12) for _ in range(2)]
    calibrate(model, images)
    add_map_scales(model, (16, 12))
    calibrate(model, images, again=False)
    to_integer(model.eval(), verbose=False)
    return model


def flat(result):
    first, others = result
    return [first, others['rest'], others['mean']]


@torch.no_grad()
def check_other_images():
    model = integer_network()
    recorded = record(model, torch.randn(2, 3, 16, 12))
    for seed in range(2):
        x = torch.randn(2, 3, 16, 12, generator=torch.Generator().manual_seed(seed))
        for image in (x, x.contiguous(memory_format=torch.channels_last)):
            pairs = zip(flat(recorded(image)), flat(model(x)), strict=True)
            assert all(type(got) is torch.Tensor and torch.equal(got, y) for got, y in pairs)


def test_a_recording_equals_the_network_on_other_images():
    check_other_images()


@pytest.mark.parametrize(
    'setting', [dict(ONEDNN_MAX_CPU_ISA='AVX2'), dict(MMWCC_KERNELS='reference')]
)
def test_other_paths_can_be_recorded(setting):
    code = 'import test_record; test_record.check_other_images()'
    subprocess.run(
        [sys.executable, '-c', code],
        check=True,
        cwd=Path(__file__).parent,
        env=os.environ | setting,
    )


def test_a_recording_calls_no_layer():
    model = integer_network()
    recorded = record(model, torch.ones(1, 3, 16, 12))
    for module in model.modules():
        module.register_forward_pre_hook(lambda *_: pytest.fail('a layer was called'))
    recorded(torch.ones(1, 3, 16, 12))


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (torch.ones(1, 3, 12, 16), r'shape \(1, 3, 16, 12\) and torch.float32, like the example'),
        (torch.ones(1, 3, 16, 12).double(), r'got \(1, 3, 16, 12\) and torch.float64'),
    ],
)
def test_inputs_of_another_kind_are_refused(wrong, message):
    recorded = record(nn.Conv2d(3, 4, 1).eval(), torch.ones(1, 3, 16, 12))
    with pytest.raises(ValueError, match=message):
        recorded(wrong)


def test_float_shares_name_what_stays_float():
    model = integer_network()
    shares = record(model, torch.ones(1, 3, 16, 12)).float_shares(torch.ones(1, 3, 16, 12))
    # The last convolution and the mean are float, sums and concatenations are not.
    assert {'conv2d', 'mean'} <= shares.keys() and not {'add_maps', 'cat_maps'} & shares.keys()
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert 0 < sum(shares.values()) < 1


def test_training_and_copies_are_refused():
    layer = nn.Conv2d(3, 4, 1)
    with pytest.raises(RuntimeError, match='must be in evaluation mode'):
        record(layer, torch.ones(1, 3, 2, 2))
    recorded = record(layer.eval(), torch.ones(1, 3, 2, 2))
    with pytest.raises(TypeError, match='can be neither copied nor saved'):
        copy.deepcopy(recorded)
