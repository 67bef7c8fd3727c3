import pytest
import torch

pytest.importorskip('mmcv')
from mmwcc.models import VGG  # noqa: E402


def test_same_parameters_and_outputs_as_mmcv():
    from mmcv.cnn import VGG as Reference

    reference, ours = (cls(16, ceil_mode=True, out_indices=(2, 4)) for cls in (Reference, VGG))
    ours.load_state_dict(dict(zip(ours.state_dict(), reference.state_dict().values(), strict=True)))
    x = torch.rand(1, 3, 36, 50)
    for expected, got in zip(reference(x), ours(x), strict=True):
        torch.testing.assert_close(got, expected)


def test_published_sizes():
    model = VGG(16, ceil_mode=True, base_channels=1, out_indices=range(5))
    assert [feature.shape[2] for feature in model(torch.zeros(1, 3, 112, 112))] == [
        56,
        28,
        14,
        7,
        4,
    ]
    assert [feature.shape[1] for feature in model(torch.zeros(1, 3, 32, 32))] == [1, 2, 4, 8, 8]


def test_starts_from_xavier():
    model = VGG(11, base_channels=16)
    model.init_weights()
    weight = model.stages[1][0].conv.weight
    assert weight.abs().max() <= (6 / (9 * (16 + 32))) ** 0.5
    torch.testing.assert_close(
        weight.std(), torch.tensor((2 / (9 * (16 + 32))) ** 0.5), rtol=0.05, atol=0
    )


def test_options():
    model = VGG(11, in_channels=9, base_channels=2, num_stages=2, norm_cfg=dict(type='BN'))
    assert model(torch.zeros(1, 9, 8, 8))[0].shape == (1, 4, 2, 2)
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()) == 2


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(depth=12), r'depth must be one of \[11, 13, 16, 19\], got 12'),
        (dict(depth=16, num_stages=6), 'num_stages must be 1 to 5, got 6'),
        (
            dict(depth=16, num_stages=2, out_indices=(2,)),
            r'out_indices must name stages from 0 to 1, got \(2,\)',
        ),
    ],
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        VGG(**kwargs)
