"""Thresholds of energy in place of the k largest positions."""

import pytest
import torch
from toy_networks import build

from mmwcc.deployment import calibrate_thresholds, exportable, kept_ratios


def test_thresholds_keep_the_ratio_of_the_images_they_come_from():
    images = torch.randn(2, 3, 64, 96)
    network = exportable(build(), images)
    with pytest.raises(
        ValueError, match='every layer that selects by energy must have a threshold, got expand'
    ):
        kept_ratios(network, [images])
    thresholds = calibrate_thresholds(network, [images])
    assert thresholds.keys() == {'expand', 'project', 'down'}
    assert all(network.get_submodule(name).threshold == thresholds[name] for name in thresholds)
    # Layers were calibrated on what the k largest let through, so later ones differ a little.
    assert kept_ratios(network, [images]) == pytest.approx(dict.fromkeys(thresholds, 0.3), abs=0.03)
