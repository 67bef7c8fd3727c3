"""The way back from the inputs of a network to pixels."""

import pytest
import torch
from torch import nn

from mmwcc.utils import reverses_channels, undo_normalization


def test_normalization_is_undone():
    preprocessor = nn.Module()
    x = torch.rand(3, 2, 2)
    assert undo_normalization(x, None) is x and undo_normalization(x, preprocessor) is x
    preprocessor.mean, preprocessor.std = (
        torch.tensor([1.0, 2, 3]).view(3, 1, 1),
        torch.full((3, 1, 1), 2.0),
    )
    torch.testing.assert_close(undo_normalization((x - preprocessor.mean) / 2, preprocessor), x)


@pytest.mark.parametrize(
    ('library', 'name', 'setting'),
    [
        ('mmengine.model', 'ImgDataPreprocessor', 'bgr_to_rgb'),
        ('mmseg.models', 'SegDataPreProcessor', 'bgr_to_rgb'),
        ('mmwcc.models.classifiers', 'ClsDataPreprocessor', 'to_rgb'),
        ('mmwcc.models.depth', 'DepthDataPreprocessor', 'bgr_to_rgb'),
    ],
)
def test_every_preprocessor_tells_that_it_reverses_the_channels(library, name, setting):
    kind = getattr(pytest.importorskip(library), name)
    for is_reversed in (True, False):
        preprocessor = kind(mean=[1.0, 2, 3], std=[2.0] * 3, **{setting: is_reversed})
        assert reverses_channels(preprocessor) == is_reversed


def test_without_a_preprocessor_nothing_is_reversed():
    assert not reverses_channels(None) and not reverses_channels(nn.Identity())
