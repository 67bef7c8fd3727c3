"""The one fold of batch normalization, against the layers that it stands for."""

import pytest
import torch
from torch import nn

from mmwcc.inference import fold_batch_norm, scale_and_bias, scale_channels


def norm_of(channels, affine=True):
    norm = nn.BatchNorm2d(channels, affine=affine).double().eval()
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.1, 4)
    if affine:
        nn.init.uniform_(norm.weight, -2, 2)  # signs too
        nn.init.uniform_(norm.bias, -1, 1)
    return norm


@pytest.mark.parametrize('affine', [True, False])
@pytest.mark.parametrize('geometry', [dict(bias=False), dict(groups=3, stride=2, padding=1)])
def test_a_fold_is_the_convolution_with_its_normalization(geometry, affine):
    conv, norm = nn.Conv2d(6, 6, 3, **geometry).double(), norm_of(6, affine)
    x = torch.randn(2, 6, 9, 7, dtype=torch.float64)
    folded = fold_batch_norm(conv, norm)
    assert folded is not conv and type(folded) is nn.Conv2d
    torch.testing.assert_close(folded(x), norm(conv(x)), rtol=1e-12, atol=1e-12)


def test_a_fold_is_rounded_once():
    conv, norm = nn.Conv2d(6, 6, 1), norm_of(6)
    exact = fold_batch_norm(nn.Conv2d(6, 6, 1).double().requires_grad_(False), norm)
    folded = fold_batch_norm(conv, norm.float())
    assert (
        folded.weight.dtype == folded.bias.dtype == torch.float32 and not exact.weight.requires_grad
    )
    scale, bias = scale_and_bias(conv, norm, torch.float64)
    assert torch.equal(folded.weight, (conv.weight.double() * scale.reshape(-1, 1, 1, 1)).float())
    assert torch.equal(folded.bias, bias.float())


def test_the_types_of_the_tensors_are_kept_unless_another_is_asked_for():
    conv, norm = nn.Conv2d(4, 4, 1), norm_of(4).float()
    assert {tensor.dtype for tensor in scale_and_bias(conv, norm)} == {torch.float32}
    assert {tensor.dtype for tensor in scale_and_bias(conv, norm, torch.float64)} == {torch.float64}


def test_without_normalization_nothing_changes():
    conv = nn.Conv2d(4, 4, 3)
    scale, bias = scale_and_bias(conv, None)
    assert torch.equal(scale_channels(conv.weight, scale), conv.weight)
    assert torch.equal(bias, conv.bias) and bias.data_ptr() != conv.bias.data_ptr()
    assert scale_and_bias(nn.Conv2d(4, 4, 3, bias=False), None)[1] is None


def test_a_normalization_without_statistics_is_refused():
    norm = nn.BatchNorm2d(6, track_running_stats=False)
    for fold in (fold_batch_norm, scale_and_bias):
        with pytest.raises(
            ValueError, match='norm must have running statistics, got a BatchNorm2d'
        ):
            fold(nn.Conv2d(6, 6, 1), norm)
