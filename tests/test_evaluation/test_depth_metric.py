"""Errors of depth against sums written out pixel by pixel."""

import math

import numpy as np
import pytest
import torch

pytest.importorskip('mmengine')

from mmengine.registry import METRICS

from mmwcc.evaluation import DepthMetric, depth_errors


def by_hand(predicted, measured) -> dict[str, float]:
    pairs = list(zip(np.ravel(predicted).tolist(), np.ravel(measured).tolist(), strict=True))
    count = len(pairs)
    out = dict(
        AbsRel=sum(abs(p - m) / m for p, m in pairs) / count,
        SqRel=sum((p - m) ** 2 / m for p, m in pairs) / count,
        RMSE=math.sqrt(sum((p - m) ** 2 for p, m in pairs) / count),
        RMSElog=math.sqrt(sum((math.log(p) - math.log(m)) ** 2 for p, m in pairs) / count),
    )
    out.update(
        {f'a{n}': sum(max(p / m, m / p) < 1.25**n for p, m in pairs) / count for n in (1, 2, 3)}
    )
    return out


def sample(predicted, measured) -> dict:
    return dict(
        pred_depth=torch.as_tensor(predicted, dtype=torch.float32),
        gt_depth=torch.as_tensor(measured, dtype=torch.float32),
    )


def evaluate(metric, *samples) -> dict[str, float]:
    metric.process(None, samples)
    return {
        name.removeprefix('depth/'): value
        for name, value in metric.evaluate(size=len(samples)).items()
    }


def test_errors():
    predicted, measured = np.random.default_rng(0).uniform(1, 10, (2, 5, 7))
    assert depth_errors(predicted, measured) == pytest.approx(by_hand(predicted, measured))


def test_metric_scales_by_medians_and_averages_images():
    rng = np.random.default_rng(1)
    images = [(rng.uniform(1, 10, (5, 7)), rng.uniform(1, 70, (5, 7))) for _ in range(3)]
    results = evaluate(
        METRICS.build(dict(type='mmwcc.DepthMetric')), *(sample(*image) for image in images)
    )
    expected = [by_hand(p * np.median(m) / np.median(p), m) for p, m in images]
    for name, value in results.items():
        assert value == pytest.approx(np.mean([errors[name] for errors in expected]), rel=1e-5)
    assert list(results) == ['AbsRel', 'SqRel', 'RMSE', 'RMSElog', 'a1', 'a2', 'a3']


def test_what_was_not_measured_does_not_count():
    predicted = np.array([[1.0, 5.0, 9.0, 2.0]])
    measured = np.array([[2.0, 0.0, 90.0, 4.0]])
    assert evaluate(DepthMetric(), sample(predicted, measured))['RMSE'] == pytest.approx(
        0, abs=1e-6
    )


def test_fixed_scale_and_range():
    results = evaluate(
        DepthMetric(scaling=5.4, max_depth=60.0), sample([[1.0, 20.0]], [[5.4, 50.0]])
    )
    assert results['AbsRel'] == pytest.approx(0.1)  # 108 is clipped to 60


@pytest.mark.parametrize(
    ('crop', 'rows', 'columns'),
    [('garg', (153, 371), (44, 1197)), ('eigen', (124, 342), (44, 1197))],
)
def test_crops(crop, rows, columns):
    """The usual numbers for 375 x 1242: only what is inside counts."""
    height, width = 375, 1242
    measured = np.full((height, width), 10.0)
    predicted = np.full((height, width), 30.0)
    predicted[slice(*rows), slice(*columns)] = 10.0
    assert evaluate(DepthMetric(scaling=1.0, crop=crop), sample(predicted, measured))['AbsRel'] == 0
    predicted[rows[0], columns[0]] = 20.0
    expected = 1 / ((rows[1] - rows[0]) * (columns[1] - columns[0]))
    results = evaluate(DepthMetric(scaling=1.0, crop=crop), sample(predicted, measured))
    assert results['AbsRel'] == pytest.approx(expected)


def test_predictions_are_enlarged_in_inverse_depth():
    """Half way between 1 / 2 and 1 / 4, as OpenCV places it."""
    results = evaluate(
        DepthMetric(scaling=1.0), sample([[2.0, 4.0]], [[2.0, 1 / 0.4375, 1 / 0.3125, 4.0]])
    )
    assert results['RMSE'] == pytest.approx(0, abs=1e-6)


def test_images_without_measurements_are_left_out():
    empty, good = sample([[1.0]], [[0.0]]), sample([[1.0]], [[3.0]])
    assert evaluate(DepthMetric(), empty, good)['AbsRel'] == pytest.approx(0)
    with pytest.raises(
        ValueError, match='gt_depth must hold measured depths, got none within min_depth'
    ):
        evaluate(DepthMetric(), empty)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(scaling='mean'), "scaling must be 'median' or a number above 0, got 'mean'"),
        (dict(scaling=0.0), 'got 0.0'),
        (dict(crop='kitti'), "crop must be 'garg', 'eigen' or None, got 'kitti'"),
        (dict(min_depth=90.0), r'min_depth must be in \(0, max_depth\), got 90.0 and 80.0'),
    ],
)
def test_refuses_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        DepthMetric(**arguments)


def test_refuses_other_samples():
    with pytest.raises(ValueError, match=r"every sample must have gt_depth, got \['pred_depth'\]"):
        DepthMetric().process(None, [dict(pred_depth=torch.ones(2, 2))])
