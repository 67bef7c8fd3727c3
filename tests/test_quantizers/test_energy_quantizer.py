"""The quantizer with a scale, and bits, for each position: its arguments, clips and state."""

import copy

import pytest
import torch

from mmwcc.functional import bits_of_positions, unit_rows
from mmwcc.quantizers import EnergyActQuantizer, LearnedClipActQuantizer

PRACTICE = (0, 3, 4, 5, 6, 8)


def rows(seed=0):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.exp(torch.randn(2, 64, 1, generator=generator))
    return scales * torch.randn(2, 64, 16, generator=generator)


def learned(**arguments):
    quantizer = EnergyActQuantizer(**arguments)
    quantizer(rows())
    return quantizer.eval()


@pytest.mark.parametrize(
    'arguments, error, words',
    [
        (dict(widths=(0, 1, 4)), ValueError, 'widths must be out of 0 and 2 ... 8, got 1'),
        (dict(widths=(0, 4, 3)), ValueError, r'widths must be ascending.* got \(0, 4, 3\)'),
        (dict(widths=(0, 4, 4)), ValueError, 'widths must be ascending, each once'),
        (dict(widths=(0,)), ValueError, 'widths must .* one above 0'),
        (dict(widths=4), TypeError, 'widths must be a sequence of integers, got 4'),
        (dict(widths=(0, 2.5)), TypeError, 'widths must be a sequence of integers'),
        (dict(bits=0, widths=PRACTICE), ValueError, r'bits must be in \(0, 8\].* got 0'),
        (dict(bits=9, widths=PRACTICE), ValueError, r'bits must be in \(0, 8\]'),
        (dict(bits=2.5), ValueError, 'bits must be in 2 ... 8.* Give widths'),
        (dict(bits=1), ValueError, 'bits must be in 2 ... 8'),
        (dict(bits='4'), TypeError, "bits must be a number, got '4'"),
        (
            dict(bits=2, widths=(3, 4)),
            ValueError,
            'bits must be at least .* Add 0',
        ),
    ],
)
def test_wrong_arguments(arguments, error, words):
    with pytest.raises(error, match=f'^EnergyActQuantizer: {words}'):
        EnergyActQuantizer(**arguments)


def test_bits_are_the_mean_over_all_positions():
    x = rows()
    for bits in (0.5, 1, 2.3, 4, 8):
        quantizer = learned(bits=bits, widths=PRACTICE)
        given = bits_of_positions(x, quantizer.spec(x)).float().mean(1)
        assert (given <= bits).all() and (given > 0.9 * min(bits, 7.9)).all()


def test_budget_and_widths_can_be_changed_at_any_time():
    x, quantizer = rows(), learned(bits=4, widths=PRACTICE)
    errors = []
    for bits in (4, 2, 1):
        quantizer.bits = bits
        errors.append((quantizer(x) - x).norm().item())
    assert errors == sorted(errors)
    quantizer.bits, quantizer.widths = 4, None
    assert torch.equal(quantizer(x), learned(bits=4)(x))
    with pytest.raises(ValueError, match='smallest width'):
        quantizer.widths = (5, 6)
    assert quantizer.widths is None


def test_a_scale_for_each_pixel_of_a_map():
    x = rows().unflatten(1, (8, 8)).permute(0, 3, 1, 2)
    quantizer = learned(bits=4)
    assert torch.equal(quantizer(x).permute(0, 2, 3, 1).flatten(1, 2), quantizer(rows()))
    scaled = x.clone()
    scaled[:, :, 2] *= 100  # other pixels do not notice
    other = [line for line in range(8) if line != 2]
    assert torch.equal(quantizer(scaled)[:, :, other], quantizer(x)[:, :, other])


def test_unit_scales_beat_one_scale():
    x, plain = rows(), LearnedClipActQuantizer(4)
    assert (learned(bits=4)(x) - x).norm() < 0.8 * (plain(x) - x).norm()


def test_calibration_chooses_the_clip_of_least_error_for_each_width():
    x = unit_rows(torch.randn(8, 256, 64, generator=torch.Generator().manual_seed(0)))
    for bits in (2, 4, 8):
        quantizer = EnergyActQuantizer(bits)
        quantizer(x)
        error = (quantizer(x) - x).square().sum()
        for factor in (0.8, 1.25):
            changed = copy.deepcopy(quantizer)
            changed.clip_alpha.data *= factor
            assert (changed(x) - x).square().sum() > error


def test_clips_learn_by_the_rule_of_lsq():
    """A step of an optimizer is that of LSQ: the gradient of the step, over sqrt(values * n)."""
    x, grad = rows(), torch.randn(2, 64, 16)
    quantizer = learned(bits=4).train()
    quantizer(x).backward(grad)
    step = (quantizer.clip_alpha[2] / 7).detach().requires_grad_()
    root = x.square().mean(-1, keepdim=True).sqrt()
    level = x / root / step
    rounded = level.detach().clamp(-7, 7).round() + (level - level.detach()) * (level.abs() <= 7)
    (rounded * step * root).backward(grad)
    values = x[0].numel()
    # The parameter is 7 steps, so that an equal change of the step needs 7 times the gradient.
    expected = 7 * step.grad / (7 * values) ** 0.5
    torch.testing.assert_close(quantizer.clip_alpha.grad[2], expected, rtol=1e-3, atol=1e-5)
    assert not quantizer.clip_alpha.grad[[0, 1, 3, 4, 5, 6]].any()


def test_state_and_copies():
    x, quantizer = rows(), learned(bits=2, widths=PRACTICE)
    fresh = EnergyActQuantizer(bits=2, widths=PRACTICE).eval()
    fresh.load_state_dict(quantizer.state_dict())
    assert torch.equal(fresh(x), quantizer(x))
    assert torch.equal(copy.deepcopy(quantizer)(x), quantizer(x))
    assert quantizer.clip_alpha.shape == (7,) and int(quantizer.granularity) == 2


def test_clips_of_other_quantizers_are_refused():
    plain = LearnedClipActQuantizer(8)
    plain(rows())
    with pytest.raises(RuntimeError, match='must have a clip for each of 7 widths, got 1'):
        EnergyActQuantizer().load_state_dict(plain.state_dict(), strict=False)
    with pytest.raises(RuntimeError, match='clip_alpha must be one clip, got 7'):
        LearnedClipActQuantizer(8).load_state_dict(learned().state_dict(), strict=False)
    channels = {'clip_alpha': torch.ones(7), 'initialized': torch.tensor(1, dtype=torch.uint8)}
    with pytest.raises(RuntimeError, match=r'granularity must be 2 \(width\), got none'):
        EnergyActQuantizer().load_state_dict(channels, strict=False)


def test_off():
    x, quantizer = rows(), learned(bits=2, widths=PRACTICE)
    quantizer.bits = 32
    assert torch.equal(quantizer(x), x)
    assert quantizer.largest_share == 1
    quantizer.bits = 2
    assert quantizer.largest_share == pytest.approx(2 / 3)


def test_its_repr_names_widths():
    assert 'bits=2, ' in repr(learned(bits=2, widths=PRACTICE))
    assert 'widths=(0, 3, 4, 5, 6, 8)' in repr(learned(bits=2, widths=PRACTICE))
