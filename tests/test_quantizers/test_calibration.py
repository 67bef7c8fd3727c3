"""Starting clips: against NumPy and against other clips on simple data."""

import numpy as np
import pytest
import torch

from mmwcc.quantizers import LearnedClipActQuantizer, LSQActQuantizer
from mmwcc.quantizers.calibration import choose_clip, join, measure
from mmwcc.testing import Grid, to_numpy

BINS = 8192


def clip_of(x, bits=8, quantizer_type=LearnedClipActQuantizer, **arguments):
    quantizer = quantizer_type(bits, **arguments)
    quantizer(x)
    return quantizer.clip_alpha.item()


DISTRIBUTIONS = {
    'uniform': torch.linspace(0, 3, 20001),
    'normal': torch.randn(20000, generator=torch.Generator().manual_seed(0)),
    'heavy tail': torch.randn(20000, generator=torch.Generator().manual_seed(1)) ** 3,
}


@pytest.mark.parametrize('distribution', DISTRIBUTIONS)
@pytest.mark.parametrize('percentile', [50.0, 90.0, 99.9, 100.0])
def test_percentile_equals_numpy_to_a_bin(distribution, percentile):
    x = DISTRIBUTIONS[distribution]
    magnitudes = to_numpy(x.abs())
    # Between two values NumPy may take any point; the clip is the upper edge of a bin.
    expected = [
        np.percentile(magnitudes, percentile, method=method) for method in ('lower', 'higher')
    ]
    one_bin = 2 * magnitudes.max() / BINS * (1 + 1e-6)  # to the next power of two
    clip = clip_of(x, calibration='percentile', percentile=percentile)
    assert expected[0] - one_bin <= clip <= expected[1] + one_bin


def error_of(x, clip, bits, signed):
    return np.square(Grid(clip, bits, signed).quantize(to_numpy(x)).values - to_numpy(x)).sum()


@pytest.mark.parametrize('distribution', DISTRIBUTIONS)
@pytest.mark.parametrize('bits', [2, 3, 4, 8])
def test_mse_is_better_than_other_clips(distribution, bits):
    x = DISTRIBUTIONS[distribution]
    signed, largest = bool((x < 0).any()), x.abs().max().item()
    best = clip_of(x, bits, calibration='mse')
    for other in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        # 128 candidates and a histogram, so as good as the best of others to a few percent.
        assert error_of(x, best, bits, signed) <= 1.03 * error_of(
            x, other * largest, bits, signed
        ), other
    assert error_of(x, best, bits, signed) < 0.9 * error_of(x, 0.1 * largest, bits, signed)


@pytest.mark.parametrize('bits', [2, 4, 8])
@pytest.mark.parametrize('quantizer_type', [LearnedClipActQuantizer, LSQActQuantizer])
def test_lsq_start_is_the_step_of_the_paper(bits, quantizer_type):
    for name, x in DISTRIBUTIONS.items():
        n = 2**bits - 1 if name == 'uniform' else 2 ** (bits - 1) - 1
        step = 2 * x.abs().double().mean().item() / n**0.5
        assert clip_of(x, bits, quantizer_type, calibration='lsq') / n == pytest.approx(
            step, rel=2e-3
        )


def test_histogram_by_hand():
    magnitudes = measure(torch.tensor([-4.0, 0.0, 1.0, 4.0, float('nan'), float('inf')]))
    assert magnitudes.largest == 4
    assert magnitudes.negative
    assert magnitudes.counts.sum() == 4
    assert magnitudes.counts[[0, BINS // 8, BINS // 2]].tolist() == [
        1,
        1,
        2,
    ]  # up to 8, the next power of two
    assert magnitudes.centres[0] == 8 / BINS / 2


@pytest.mark.parametrize('method', ['mse', 'percentile', 'lsq'])
def test_clip_of_zeros_is_zero(method):
    assert choose_clip(measure(torch.zeros(3)), method, 7, 99.9) == 0


@pytest.mark.parametrize('method', ['mse', 'percentile', 'lsq'])
@pytest.mark.parametrize('scale', [1e-6, 1e6])
def test_clip_scales_with_the_data(method, scale):
    x = DISTRIBUTIONS['normal']
    clip = clip_of(x, 4, calibration=method)
    assert clip_of(x * scale, 4, calibration=method) == pytest.approx(clip * scale, rel=1e-2)


@pytest.mark.parametrize(
    'scales', [[1.0, 4.0, 0.5], [1.0, 1e-8, 1e8], [3e38, 1e-38, 1.0], [1.0, 1.0, 1.0]]
)
def test_joined_histograms_are_those_of_all_values(scales):
    parts = torch.rand(3, 20000, generator=torch.Generator().manual_seed(0)) - 0.2
    parts = parts * torch.tensor(scales).unsqueeze(1)
    together = measure(parts)
    one, two, three = (measure(part) for part in parts)
    for joined in (join(join(one, two), three), join(three, join(one, two))):
        assert joined.counts.sum() == 60000
        assert all(torch.equal(part, whole) for part, whole in zip(joined, together, strict=True))


def test_join_by_hand():
    ones, fours = (measure(torch.full((5,), value)) for value in (1.0, -4.0))
    joined = join(ones, fours)
    assert joined.counts.nonzero().flatten().tolist() == [BINS // 8, BINS // 2] and joined.negative
    nothing = measure(torch.zeros(0))
    assert torch.equal(join(nothing, ones).counts, ones.counts) and not join(nothing, ones).negative
    assert join(nothing, nothing).largest == 0
