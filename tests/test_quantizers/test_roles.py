"""What the quantizers of one role share: their arguments, and where their clips start."""

import pytest
import torch

from mmwcc.quantizers import (
    ActQuantizer,
    LearnedClipActQuantizer,
    LearnedClipWeightQuantizer,
    LSQActQuantizer,
    LSQWeightQuantizer,
    PACTActQuantizer,
    WeightQuantizer,
)

CLIPS = {
    LearnedClipActQuantizer: 8.0,
    LSQActQuantizer: 8.0,
    PACTActQuantizer: 10.0,
    LearnedClipWeightQuantizer: 3.0,
    LSQWeightQuantizer: 1.0,
}


@pytest.mark.parametrize(('kind', 'clip'), CLIPS.items())
def test_each_kind_starts_at_its_own_clip(kind, clip):
    for quantizer in (kind(calibration=None), kind(4, calibration=None, initial_clip=None)):
        assert quantizer.clip_alpha.tolist() == [clip] and quantizer.initial_clip == clip
    assert kind(initial_clip=2.5).clip_alpha.tolist() == [2.5]


@pytest.mark.parametrize('kind', CLIPS)
def test_weights_are_signed_and_activations_have_one_clip(kind):
    if issubclass(kind, WeightQuantizer):
        assert kind()._sign is True and kind(per_channel=True).scales.axes == (0,)
        with pytest.raises(TypeError, match='signed'):
            kind(signed=False)
    else:
        assert issubclass(kind, ActQuantizer) and kind()._sign is None
        with pytest.raises(TypeError, match='per_channel'):
            kind(per_channel=True)


@pytest.mark.parametrize(
    ('kind', 'own'),
    [(LearnedClipActQuantizer, -3), (PACTActQuantizer, -3), (LSQActQuantizer, -4)],
)
def test_a_signed_grid_has_its_lowest_level_or_not(kind, own):
    x = torch.tensor([-9.0, -3.6, 3.6, 9.0])
    for symmetric, lowest in ((None, own), (True, -3), (False, -4)):
        quantizer = kind(3, signed=True, calibration=None, initial_clip=3.0, symmetric=symmetric)
        assert quantizer(x).tolist() == [lowest, lowest, 3, 3]
        assert (f'symmetric={symmetric}' in repr(quantizer)) == (lowest != own)
        unsigned = kind(3, signed=False, calibration=None, initial_clip=7.0, symmetric=symmetric)
        assert unsigned(x).tolist() == [0, 0, 4, 7]
