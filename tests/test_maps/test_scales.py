"""Scales of maps: learned, kept, rounded to, and refused where they make no sense."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.inference import act_grid
from mmwcc.maps import MAP_SCALES, add_map_scales
from mmwcc.post_training import calibrate

INT8 = dict(
    pointwise=dict(type='mmwcc.QuantConv2d'),
    other=dict(type='mmwcc.QuantConv2d'),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer'),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer'),
)


class Net(nn.Module):
    """A residual sum that two layers read, between a first and a last layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.b, self.c = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(self.norm(self.a(x)) + x)
        return self.last(self.b(x) + F.avg_pool2d(self.c(x), 3, 1, 1))


SUM = 'relu(add(norm(a),))'


def images(seed, count=2):
    return torch.randn(count, 3, 12, 10, generator=torch.Generator().manual_seed(seed))


def compressed():
    torch.manual_seed(0)
    model = Net()
    compress_model(model, INT8, verbose=False)
    return model.eval()


@pytest.fixture
def scaled():
    model = compressed()
    batches = [images(0), images(1)]
    calibrate(model, batches)
    add_map_scales(model, (12, 10))
    calibrate(model, batches, again=False)
    return model


def test_maps_of_a_network_get_scales():
    model = compressed()
    scales = add_map_scales(model, (12, 10))
    assert model.map_scales is scales
    assert scales.plan.layers == ['a', 'b', 'c'] and scales.plan.norms == {'a': 'norm'}
    assert scales.plan.own == ['norm(a)', SUM]
    assert scales.of(SUM).bits == 8 and not scales.of(SUM).is_settled
    assert not scales.of(SUM).training, 'evaluation teaches nothing'
    assert scales.of(SUM).settles_with_model, 'ranks of a distributed training agree on it'
    assert len(model._forward_hooks) == 1 + len(compressed()._forward_hooks)


def test_a_map_is_rounded_by_its_reader_whatever_the_reader_writes():
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x):
            y = self.b(self.a(x))
            return self.c(y + F.silu(y))

    model = Chain().eval()
    compress_model(model, dict(INT8, keep_dense=[]), verbose=False)
    rounding = add_map_scales(model, (8, 8)).quantizers(model)
    assert rounding['a'] is model.b.act_quant and rounding['b'] is model.map_scales.of('b')


def test_calibration_learns_them_and_only_them(scaled):
    assert scaled.map_scales.of(SUM).is_settled and scaled.map_scales.of('norm(a)').is_settled
    assert not scaled.map_scales.of(SUM).signed and scaled.map_scales.of('norm(a)').signed
    again = compressed()
    calibrate(again, [images(0), images(1)])
    state = scaled.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())


def test_they_are_in_the_checkpoint(scaled):
    added = [key for key in scaled.state_dict() if key.startswith(MAP_SCALES)]
    assert f'{MAP_SCALES}.{SUM}.clip_alpha' in added and len(added) == 6
    buffer = io.BytesIO()
    torch.save(scaled.state_dict(), buffer)
    buffer.seek(0)
    other = compressed()
    add_map_scales(other, (16, 16))  # the shape of the example does not matter
    other.load_state_dict(torch.load(buffer))
    assert torch.equal(other(images(3)), scaled(images(3)))


def test_maps_are_rounded_in_each_forward_pass(scaled):
    seen = {}
    for name in ('b', 'c'):
        getattr(scaled, name).register_forward_pre_hook(
            lambda _, args, name=name: seen.update({name: args[0]})
        )
    y = scaled(images(2))
    step = scaled.map_scales.of(SUM).clip_alpha.item() / 255
    levels = seen['b'] / step
    assert seen['b'] is seen['c'] and (levels - levels.round()).abs().max() < 1e-3
    plain = copy.deepcopy(scaled)
    plain.map_scales.leave(plain)
    assert 0 < (plain(images(2)) - y).abs().max() < 0.2 * y.std()


@pytest.mark.parametrize('other', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_round_with_scales_of_their_own(scaled, other):
    expected = scaled(images(2))
    model = other(scaled)
    assert torch.equal(model(images(2)), expected)
    with torch.no_grad():
        model.map_scales.of(SUM).clip_alpha.mul_(0.5)
    assert not torch.equal(model(images(2)), expected)
    assert torch.equal(scaled(images(2)), expected)


def test_training_learns_scales(scaled):
    model = compressed()
    add_map_scales(model, (12, 10))
    model.train()
    model(images(0)).square().mean().backward()  # the first batch sets them
    clips = [model.map_scales.of(name).clip_alpha for name in model.map_scales.plan.own]
    assert all(model.map_scales.of(name).is_settled for name in model.map_scales.plan.own)
    model(images(1)).square().mean().backward()
    assert all(clip.grad is not None and clip.grad.abs() > 0 for clip in clips)
    assert model.stem.weight.grad.abs().max() > 0


def test_training_rounds_as_evaluation_does(scaled):
    scaled.norm.track_running_stats = True
    expected = scaled(images(2))
    scaled.train()
    scaled.norm.eval()
    torch.testing.assert_close(scaled(images(2)), expected, rtol=0, atol=1e-6)


def test_nothing_is_left_after_a_failing_run(scaled):
    expected = scaled(images(2))
    with pytest.raises(RuntimeError):
        scaled(torch.zeros(1, 5, 4, 4))
    assert not scaled.map_scales._running and not scaled.a._forward_hooks
    assert torch.equal(scaled(images(2)), expected)


def test_leaving_removes_the_hooks(scaled):
    scaled.map_scales.leave(scaled)
    assert len(scaled._forward_hooks) == len(compressed()._forward_hooks)
    assert not scaled._forward_pre_hooks
    assert not scaled._forward_hooks_always_called


def test_scales_cannot_be_added_twice(scaled):
    with pytest.raises(ValueError, match='must have no scales of maps yet, got a Net that has'):
        add_map_scales(scaled, (12, 10))


@pytest.mark.parametrize('bits', [1, 9, 8.0, True, None])
def test_bits_must_fit_a_byte(bits):
    with pytest.raises(ValueError, match=f'bits must be an integer from 2 to 8, got {bits}'):
        add_map_scales(compressed(), (12, 10), bits)


def test_a_layer_must_read_maps():
    with pytest.raises(ValueError, match='must have a QuantConv2d of at most 8 bits, got Net'):
        add_map_scales(Net())
    wide = Net()
    compress_model(wide, {**INT8, 'act_quant': {**INT8['act_quant'], 'bits': 16}}, verbose=False)
    with pytest.raises(ValueError, match='must have a QuantConv2d of at most 8 bits'):
        add_map_scales(wide)


def test_the_network_must_run_on_the_example():
    model = compressed()
    with pytest.raises(
        ValueError, match=r'Net must run on zeros of shape \(1, 5, 12, 10\) to follow'
    ):
        add_map_scales(model, (5, 12, 10))
    assert not hasattr(model, MAP_SCALES) and not model._forward_pre_hooks
    assert not any(module._forward_hooks for module in model.children())


def test_grids_of_maps_have_their_lowest_level_and_may_all_be_signed():
    for signed in (None, True):
        model = compressed()
        scales = add_map_scales(model, (12, 10), signed=signed)
        assert scales.plan.own
        for name in scales.plan.own:
            quantizer = scales.of(name)
            assert not quantizer.symmetric and quantizer._sign is signed
        calibrate(model, [torch.rand(1, 3, 12, 10)])
        lowest = {act_grid(scales.of(name))[1] for name in scales.plan.own}
        assert lowest <= ({-128} if signed else {-128, 0})
