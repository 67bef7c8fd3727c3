"""What all quantizers share: when they calibrate, what they remember, bits, copies, and what they
refuse.
"""

import copy
import pickle

import pytest
import torch
from torch import nn

from mmwcc.quantizers import (
    LearnedClipActQuantizer,
    LearnedClipWeightQuantizer,
    LSQActQuantizer,
    LSQWeightQuantizer,
    PACTActQuantizer,
    UniformQuantizer,
    learning,
    settle_after_forward,
    tolerate_unlearned,
)
from mmwcc.registry import MODELS

ACT = [LearnedClipActQuantizer, LSQActQuantizer, PACTActQuantizer]
WEIGHT = [LearnedClipWeightQuantizer, LSQWeightQuantizer]
every = pytest.mark.parametrize('quantizer_type', ACT + WEIGHT)
every_act = pytest.mark.parametrize('quantizer_type', ACT)


def values(scale=1.0, size=1000):
    return scale * torch.randn(size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def no_warning_was_given_before(monkeypatch):
    monkeypatch.setattr(learning, '_warned', set())


@every
def test_the_first_training_batch_sets_the_clip_and_the_next_do_not(quantizer_type):
    quantizer = quantizer_type(8)
    assert not quantizer.is_settled
    quantizer(values())
    clip = quantizer.clip_alpha.item()
    assert quantizer.is_settled
    assert 1 < clip < 5  # most of a standard normal
    quantizer(values(100.0))
    assert quantizer.clip_alpha.item() == clip


@every_act
@pytest.mark.parametrize(
    'batch, expected',
    [
        (torch.tensor([0.0, 1.0, 2.0]), False),
        (torch.tensor([-0.1, 1.0, 2.0]), True),
        (torch.tensor([-0.0, 1.0]), False),
    ],
)
def test_any_negative_value_makes_it_signed(quantizer_type, batch, expected):
    quantizer = quantizer_type(8)
    quantizer(batch)
    assert bool(quantizer.signed) == expected
    quantizer(-batch - 1)
    assert bool(quantizer.signed) == expected  # decided once


@every_act
@pytest.mark.parametrize('forced', [False, True])
def test_sign_can_be_forced(quantizer_type, forced):
    for batch in (torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 2.0])):
        quantizer = quantizer_type(8, signed=forced)
        quantizer(batch)
        assert bool(quantizer.signed) == forced


@pytest.mark.parametrize('quantizer_type', WEIGHT)
def test_weights_are_signed(quantizer_type):
    quantizer = quantizer_type(8)
    quantizer(torch.rand(10) + 1)
    assert quantizer.signed
    assert quantizer.state_dict()['signed'] == 1


@every_act
def test_zeros_teach_nothing(quantizer_type):
    quantizer = quantizer_type(8)
    assert torch.equal(quantizer(torch.zeros(10)), torch.zeros(10))
    assert not quantizer.is_settled
    quantizer(values())
    assert quantizer.is_settled
    assert quantizer.signed


@every_act
@pytest.mark.parametrize('batch', [torch.empty(0, 4), torch.full((3,), float('nan'))])
def test_neither_do_empty_batches_or_nan(quantizer_type, batch):
    quantizer = quantizer_type(8)
    quantizer(batch)
    assert not quantizer.is_settled
    assert quantizer.clip_alpha.isfinite()


@every_act
def test_values_that_are_not_finite_do_not_spoil_the_clip(quantizer_type):
    clean, spoilt = quantizer_type(8), quantizer_type(8)
    clean(values())
    spoilt(torch.cat([values(), torch.tensor([float('inf'), -float('inf'), float('nan')])]))
    assert spoilt.clip_alpha == clean.clip_alpha


@every
def test_without_calibration_it_starts_at_the_initial_clip(quantizer_type):
    quantizer = quantizer_type(8, calibration=None, initial_clip=2.5)
    quantizer(values())
    assert quantizer.clip_alpha.item() == 2.5
    assert quantizer.is_settled


@every
def test_evaluation_before_initialization_is_refused(quantizer_type):
    quantizer = quantizer_type(4).eval()
    quantizer(torch.zeros(8))  # zeros need no clip
    name = quantizer_type.__name__
    with pytest.raises(
        RuntimeError,
        match=f'^{name} was evaluated before its clip was learned. Load a checkpoint '
        'of the compressed model, or train or calibrate the model first. If training does not '
        r'reach this layer, call mmwcc.compression.allow_dense\(model\), or set '
        'allow_dense=True in CompressionCheckHook.$',
    ):
        quantizer(values(3.0))
    settle_after_forward(torch.nn.ModuleDict(dict(head=quantizer)))
    with pytest.raises(RuntimeError, match=f'^{name} of head was evaluated before its clip'):
        quantizer(values(3.0))
    quantizer.bits = 32
    assert torch.equal(quantizer(values(3.0)), values(3.0))


@every
def test_evaluation_before_initialization_may_be_allowed(quantizer_type):
    """It warns once and stores nothing."""
    quantizer = quantizer_type(4).eval()
    tolerate_unlearned(quantizer)
    before = copy.deepcopy(quantizer.state_dict())
    with pytest.warns(
        UserWarning, match=f'{quantizer_type.__name__} was evaluated before its clip was learned'
    ):
        y = quantizer(values(3.0))
    assert all(torch.equal(before[key], value) for key, value in quantizer.state_dict().items())
    assert not quantizer.is_settled
    trained = quantizer_type(4)
    assert torch.equal(y, trained(values(3.0)))  # the clip of this batch
    quantizer(values())  # a second warning would be an error below
    quantizer.train()(values(3.0))
    assert quantizer.clip_alpha == trained.clip_alpha


@every
def test_evaluation_is_allowed_after_a_training_that_met_only_zeros(quantizer_type):
    """A layer that starts at zero has other values after the first step, which may be tested."""
    quantizer, trained = quantizer_type(4), quantizer_type(4)
    quantizer(torch.zeros(8))
    with pytest.warns(UserWarning, match='It has met only zeros in training so far. One more'):
        y = quantizer.eval()(values(3.0))
    assert torch.equal(y, trained(values(3.0)))  # the clip of this batch
    assert not quantizer.is_settled


@every
def test_frozen_quantizers_calibrate_while_the_rest_of_the_model_trains(quantizer_type):
    quantizer = quantizer_type(8).eval().requires_grad_(False)
    with torch.no_grad(), pytest.raises(RuntimeError, match='before its clip was learned'):
        quantizer(values())
    assert not quantizer.is_settled
    quantizer(values())
    assert quantizer.is_settled


@every
@pytest.mark.parametrize('training', [False, True])
def test_resume_does_not_calibrate_again(quantizer_type, training):
    old = quantizer_type(8)
    old(values())
    new = quantizer_type(8)
    new(values(7.0))  # even if it has seen other data
    new.load_state_dict(old.state_dict())
    new.train(training)
    assert torch.equal(new(values(50.0)), old(values(50.0)))
    assert new.clip_alpha == old.clip_alpha


@every_act
def test_the_sign_is_in_the_checkpoint(quantizer_type):
    old = quantizer_type(8)
    old(values().abs())
    new = quantizer_type(8)
    new(values())
    new.load_state_dict(old.state_dict())
    assert new(torch.tensor([-1.0])).item() == 0


@every
def test_loading_an_uninitialized_state_calibrates_again(quantizer_type):
    quantizer = quantizer_type(8)
    quantizer(values())
    quantizer.load_state_dict(quantizer_type(8).state_dict())
    quantizer(values(10.0))
    fresh = quantizer_type(8)
    fresh(values(10.0))
    assert quantizer.clip_alpha == fresh.clip_alpha


@every
@pytest.mark.parametrize(
    'clone',
    [copy.deepcopy, lambda quantizer: pickle.loads(pickle.dumps(quantizer))],
    ids=['deepcopy', 'pickle'],
)
@pytest.mark.parametrize('used', [False, True])
def test_copies(quantizer_type, clone, used):
    quantizer = quantizer_type(4)
    if used:
        quantizer(values())
    twin = clone(quantizer)
    assert torch.equal(twin(values(2.0)), quantizer(values(2.0)))
    assert twin.clip_alpha is not quantizer.clip_alpha


@every
def test_bits_change_at_run_time(quantizer_type):
    quantizer = quantizer_type(8, calibration=None, initial_clip=2.0)
    x = torch.linspace(-2, 2, 10001)
    quantizer(x)
    counts = []
    for bits in (8, 3, 2, 16):
        quantizer.bits = bits
        counts.append(len(quantizer(x).unique()))
    assert counts[0] in (255, 256)
    assert counts[1] < counts[0] < counts[3]
    assert counts[2] <= 4
    assert quantizer.clip_alpha.item() == 2.0


@every
def test_32_bits_is_the_identity_with_zero_gradients(quantizer_type):
    quantizer = quantizer_type(32)
    x = values().requires_grad_()
    y = quantizer(x)
    y.backward(values(2.0))
    assert torch.equal(y, x)
    assert torch.equal(x.grad, values(2.0))
    assert quantizer.clip_alpha.grad.item() == 0  # not None: DistributedDataParallel wants one
    assert not quantizer.is_on and not quantizer.is_settled
    quantizer.bits = 8
    quantizer(x)
    assert quantizer.is_on and quantizer.is_settled


@every
def test_parameter_and_buffer_names(quantizer_type):
    quantizer = quantizer_type(8)
    assert [name for name, _ in quantizer.named_parameters()] == ['clip_alpha']
    assert set(quantizer.state_dict()) == {'clip_alpha', 'initialized', 'signed'}
    assert isinstance(quantizer.clip_alpha, nn.Parameter)
    assert quantizer.clip_alpha.shape == (1,)


@every
def test_the_registry_builds_it(quantizer_type):
    quantizer = MODELS.build(dict(type=f'mmwcc.{quantizer_type.__name__}', bits=5))
    assert type(quantizer) is quantizer_type
    assert quantizer.bits == 5


@every
@pytest.mark.parametrize(
    'arguments, error, message',
    [
        (dict(bits=1), ValueError, r'bits must be in 2 ... 16, or 32 for no quantization, got 1'),
        (dict(bits=17), ValueError, 'bits must be in 2 ... 16, or 32 for no quantization, got 17'),
        (dict(bits=33), ValueError, 'bits must be in 2 ... 16, or 32 for no quantization, got 33'),
        (dict(bits=8.0), TypeError, 'bits must be an integer, got 8.0'),
        (dict(bits='8'), TypeError, "bits must be an integer, got '8'"),
        (dict(bits=True), TypeError, 'bits must be an integer, got True'),
        (
            dict(calibration='max'),
            ValueError,
            "calibration must be one of mse, percentile, lsq or None, got 'max'",
        ),
        (dict(percentile=0), ValueError, r'percentile must be in \(0, 100\], got 0'),
        (dict(percentile=101), ValueError, r'percentile must be in \(0, 100\], got 101'),
        (dict(initial_clip=0), ValueError, 'initial_clip must be positive, got 0'),
        (dict(initial_clip=float('nan')), ValueError, 'initial_clip must be positive, got nan'),
    ],
)
def test_bad_arguments(quantizer_type, arguments, error, message):
    with pytest.raises(error, match=f'{quantizer_type.__name__}: {message}'):
        quantizer_type(**arguments)


@every
def test_setting_bits_is_checked_too(quantizer_type):
    quantizer = quantizer_type(8)
    with pytest.raises(ValueError, match='bits must be in 2 ... 16'):
        quantizer.bits = 1
    assert quantizer.bits == 8


@every_act
@pytest.mark.parametrize('training', [True, False])
def test_several_batches_set_the_clip_together(quantizer_type, training):
    quantizer = quantizer_type(8, calibration='percentile', percentile=100).train(training)
    quantizer.calibrate(torch.tensor([9.0, 10.0]))  # forgotten when calibration begins
    quantizer.begin_calibration()
    assert not quantizer.is_settled
    for batch, clip, signed in (([1.0, 2.0], 2, False), ([-3.0, 1.0], 3, True), ([0.5], 3, True)):
        quantizer(torch.tensor(batch))
        assert quantizer.clip_alpha.item() == pytest.approx(clip)
        assert bool(quantizer.signed) == signed
    quantizer.end_calibration()
    quantizer(torch.tensor([7.0]))
    assert quantizer.clip_alpha.item() == pytest.approx(3) and quantizer.is_settled


@every_act
def test_a_calibration_without_values_leaves_it_uninitialized(quantizer_type):
    quantizer = quantizer_type(8)
    quantizer.begin_calibration()
    quantizer(torch.zeros(4))
    quantizer.end_calibration()
    assert not quantizer.is_settled


@every_act
def test_one_batch_gives_the_clip_of_training(quantizer_type):
    quantizer, trained = quantizer_type(4).eval(), quantizer_type(4)
    quantizer.begin_calibration()
    assert torch.equal(quantizer(values()), trained(values()))
    assert quantizer.clip_alpha == trained.clip_alpha


@pytest.mark.parametrize('name', ['forward', 'arguments', 'calibrate', 'prepare'])
def test_what_layers_do_themselves_cannot_be_overridden(name):
    with pytest.raises(
        TypeError,
        match=f'Mine: a quantizer must not override {name}, because layers quantize without '
        'calling it. Say in spec',
    ):
        type('Mine', (LearnedClipActQuantizer,), {name: lambda self, x: x})
    mixin = type('Mixin', (), {name: lambda self, x: x})
    with pytest.raises(TypeError, match=f'Mine: a quantizer must not override {name}'):
        type('Mine', (mixin, UniformQuantizer), {})
