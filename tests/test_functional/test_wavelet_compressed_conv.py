"""The compressed convolution as a function: the dense one at keep_ratio 1, the float64 reference
everywhere else.
"""

import pytest
import torch
import torch.nn.functional as F

from mmwcc.functional import SELECTIONS, pack, wavelet_compressed_conv2d
from mmwcc.testing import (
    WAVELETS,
    Compression,
    Measured,
    reference_wcc,
    relative_error,
    to_numpy,
)

MEMORY_FORMATS = [torch.contiguous_format, torch.channels_last]


def arguments(channels, height, width, out_channels, *, batch=1, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, channels, height, width), (out_channels, channels, 1, 1), (out_channels,)]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize('channels', [3, 24, 96, 160])
@pytest.mark.parametrize('height, width', [(1, 1), (7, 5), (64, 64), (63, 65)])
@pytest.mark.parametrize('memory_format', MEMORY_FORMATS)
def test_keep_ratio_1_is_the_dense_convolution(channels, height, width, memory_format):
    x, weight, bias = arguments(channels, height, width, 17)
    x = x.detach().contiguous(memory_format=memory_format)
    y = wavelet_compressed_conv2d(x, weight, bias, keep_ratio=1)
    assert relative_error(y, to_numpy(F.conv2d(x, weight, bias))) < 1e-5
    assert y.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize('wavelet', WAVELETS)
@pytest.mark.parametrize('levels', [1, 2, 3, 4])
@pytest.mark.parametrize('selection', SELECTIONS)
@pytest.mark.parametrize('keep_ratio', [1, 0.5, 0.25, 0.125])
def test_forward_and_gradients_equal_the_reference(wavelet, levels, selection, keep_ratio):
    x, weight, bias = arguments(5, 13, 18, 7, batch=2)
    compression = dict(keep_ratio=keep_ratio, levels=levels, wavelet=wavelet, selection=selection)
    y = wavelet_compressed_conv2d(x, weight, bias, **compression)
    keep = pack(x, **compression)[1] >= 0
    expected = reference_wcc(x, weight, bias, Compression(**compression), measured=Measured(keep))
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    y.backward(grad)
    gradients = expected.gradients(to_numpy(grad))
    assert relative_error(y, expected.y) < 1e-5
    for name, tensor in (('x', x), ('weight', weight), ('bias', bias)):
        assert relative_error(tensor.grad, gradients[name]) < 1e-4, name


@pytest.mark.parametrize('wavelet', ['haar', 'bior2.2'])
def test_large_map_equals_the_reference(wavelet):
    x, weight, bias = arguments(8, 61, 70, 6)
    compression = dict(keep_ratio=0.25, levels=3, wavelet=wavelet, selection='energy')
    y = wavelet_compressed_conv2d(x, weight, bias, **compression)
    keep = pack(x, **compression)[1] >= 0
    expected = reference_wcc(x, weight, bias, Compression(**compression), measured=Measured(keep))
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    y.backward(grad)
    gradients = expected.gradients(to_numpy(grad))
    assert relative_error(y, expected.y) < 1e-5
    for name, tensor in (('x', x), ('weight', weight), ('bias', bias)):
        assert relative_error(tensor.grad, gradients[name]) < 1e-4, name


def test_the_reference_would_notice_the_synthesis_taken_for_the_gradient_of_the_analysis():
    # The mistake is invisible for orthogonal wavelets, so this compares the two for a biorthogonal
    # one.
    x, weight, _ = arguments(2, 8, 8, 2, dtype=torch.float64)
    expected = reference_wcc(x, weight, compression=Compression(0.5, 2, 'bior2.2'))
    grad = torch.randn(2, 8, 8, dtype=torch.float64).unsqueeze(0).numpy()
    right = expected.gradients(grad)['x']
    transform = expected.transform
    hat = transform.synthesis_transposed(grad) * expected.keep[:, None]
    wrong = transform.synthesis(
        torch.einsum('oc,bon->bcn', weight[:, :, 0, 0].detach(), torch.from_numpy(hat)).numpy()
    )
    assert relative_error(wrong, right) > 0.05


@pytest.mark.parametrize('wavelet', ['haar', 'db2', 'bior2.2'])
def test_gradcheck(wavelet):
    x, weight, bias = arguments(2, 3, 4, 2, dtype=torch.float64)

    def convolution(x, weight, bias):
        return wavelet_compressed_conv2d(x, weight, bias, keep_ratio=0.4, levels=2, wavelet=wavelet)

    assert torch.autograd.gradcheck(convolution, (x, weight, bias))


def test_gradgradcheck():
    x, weight, bias = arguments(2, 4, 3, 2, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(
        lambda *tensors: wavelet_compressed_conv2d(*tensors, keep_ratio=0.4, levels=1),
        (x, weight, bias),
    )


@pytest.mark.parametrize('wavelet', ['haar', 'db2'])
@pytest.mark.parametrize(
    'dtype, tolerance', [(torch.bfloat16, 2e-2), (torch.float16, 3e-3), (torch.float64, 1e-12)]
)
def test_dtypes(wavelet, dtype, tolerance):
    x, weight, bias = arguments(16, 9, 12, 8, dtype=dtype)
    compression = dict(keep_ratio=0.5, levels=2, wavelet=wavelet)
    y = wavelet_compressed_conv2d(x, weight, bias, **compression)
    keep = pack(x, **compression)[1] >= 0
    expected = reference_wcc(x, weight, bias, Compression(**compression), measured=Measured(keep))
    grad = torch.randn_like(y)
    y.backward(grad)
    assert y.dtype == x.grad.dtype == weight.grad.dtype == bias.grad.dtype == dtype
    assert relative_error(y, expected.y) < tolerance
    gradients = expected.gradients(to_numpy(grad))
    for name, tensor in (('x', x), ('weight', weight), ('bias', bias)):
        assert relative_error(tensor.grad, gradients[name]) < 2 * tolerance, name


@pytest.mark.parametrize('wavelet', ['haar', 'bior2.2'])
@pytest.mark.parametrize('memory_format', MEMORY_FORMATS)
@pytest.mark.parametrize('size', [(8, 8), (7, 5), (1, 6)])
def test_output_and_gradient_follow_the_memory_format(wavelet, memory_format, size):
    x = torch.randn(2, 4, *size).contiguous(memory_format=memory_format).requires_grad_()
    y = wavelet_compressed_conv2d(
        x, torch.randn(6, 4, 1, 1), keep_ratio=0.5, levels=2, wavelet=wavelet
    )
    y.sum().backward()
    assert y.is_contiguous(memory_format=memory_format)
    assert x.grad.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize(
    'changes, error, message',
    [
        (dict(keep_ratio=0), ValueError, r'keep_ratio must be in \(0, 1\], got 0'),
        (dict(keep_ratio=-0.5), ValueError, r'keep_ratio must be in \(0, 1\], got -0.5'),
        (
            dict(keep_ratio=50),
            ValueError,
            r'got 50. It is a fraction: use 0.5 for 50 %, and 1.0 to',
        ),
        (dict(keep_ratio=float('nan')), ValueError, r'keep_ratio must be in \(0, 1\], got nan'),
        (dict(keep_ratio='a'), TypeError, "keep_ratio must be a number, got 'a'"),
        (dict(keep_ratio=True), TypeError, 'keep_ratio must be a number, got True'),
        (dict(levels=0), ValueError, 'levels must be at least 1, got 0'),
        (dict(levels=-1), ValueError, 'levels must be at least 1, got -1'),
        (dict(levels=1.5), TypeError, 'levels must be an integer, got 1.5'),
        (
            dict(wavelet='haarr'),
            ValueError,
            "wavelet must be a discrete wavelet of PyWavelets, got 'haarr'",
        ),
        (
            dict(wavelet='morl'),
            ValueError,
            "wavelet must be a discrete wavelet of PyWavelets, got 'morl'",
        ),
        (
            dict(wavelet=None),
            ValueError,
            'wavelet must be a discrete wavelet of PyWavelets, got None',
        ),
        (
            dict(selection='random'),
            ValueError,
            "selection must be one of energy, coarse, got 'random'",
        ),
    ],
)
def test_bad_compression(changes, error, message):
    compression = dict(keep_ratio=0.5, levels=2, wavelet='haar', selection='energy') | changes
    with pytest.raises(error, match=message):
        wavelet_compressed_conv2d(torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 1, 1), **compression)


@pytest.mark.parametrize(
    'x, weight',
    [
        ((2, 4, 4), (3, 2, 1, 1)),
        ((1, 2, 4, 4), (3, 5, 1, 1)),
        ((1, 2, 4, 4), (3, 2, 3, 3)),
        ((1, 2, 4, 4), (3, 2)),
    ],
)
def test_bad_shapes(x, weight):
    with pytest.raises(
        ValueError, match=r'x must have shape \(B, C, H, W\) and weight \(O, C, 1, 1\)'
    ):
        wavelet_compressed_conv2d(torch.zeros(x), torch.zeros(weight), keep_ratio=0.5)
