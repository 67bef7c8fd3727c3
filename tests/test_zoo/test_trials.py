"""Structurally different stock methods, trained for a step and tested, dense and compressed."""

from importlib.util import find_spec

import pytest

pytest.importorskip('mmseg', exc_type=ImportError)
pytest.importorskip('mmdet', exc_type=ImportError)

from mmwcc.zoo import faults, methods, try_method  # noqa: E402

from .small import small_backbone  # noqa: E402

SEGMENTORS = [
    'bisenetv2',  # two branches of depthwise convolutions
    'cgnet',  # dilated convolutions beside each other
    'emanet',  # a convolution that never trains
    'maskformer',  # a transformer that mmdetection lends, and no mode 'tensor'
    'pidnet',  # three branches with losses of edges
    'point_rend',  # a cascade of heads, the second on points
    'pspnet',  # pooling to one pixel
    'segformer',  # attention over reduced maps
]
DETECTORS = [
    'centernet',  # deformable and transposed convolutions, offsets that begin at zero
    'deformable_detr',  # attention that samples
    'detr',  # attention between queries
    'dyhead',  # convolutions that several levels share
    'mask_rcnn',  # two stages and masks
    'retinanet',  # one head for all levels
    'rtmdet',  # convolutions that are shared one by one
    'yolox',  # a backbone of partial stages
]


def try_small(library: str, name: str) -> dict:
    method = next(method for method in methods(library) if method.name == name)
    return try_method(method, sizes=(64,), change=small_backbone)


# They choose the level of an object by what they predict, so that another level may learn nothing.
DYNAMIC = ['rtmdet', 'yolox']


def assert_compressed_as_dense(result: dict) -> None:
    """Whatever the dense network does, the compressed one does too."""
    assert result['dense']['error'] == ''
    assert faults(result) == [] and result['trained'] > 0
    assert 'error' not in result['shares']
    assert result['shares']['wavelet'] + result['shares']['quantized'] > 0


@pytest.mark.parametrize('name', SEGMENTORS)
def test_segmentors(name):
    result = try_small('mmseg', name)
    assert_compressed_as_dense(result)
    assert result['zero'] == []


@pytest.mark.parametrize('name', DETECTORS)
def test_detectors(name):
    result = try_small('mmdet', name)
    assert_compressed_as_dense(result)
    assert name in DYNAMIC or result['zero'] == []


def test_a_network_that_needs_weights_to_be_initialized():
    def ask_for_weights(config):
        config.model.init_cfg = dict(type='Pretrained', checkpoint='absent.pth')

    method = next(method for method in methods('mmseg') if method.name == 'stdc')
    result = try_method(method, sizes=(64,), change=ask_for_weights)
    assert_compressed_as_dense(result)


def test_a_network_without_convolutions():
    result = try_small('mmseg', 'segmenter')
    assert 'MultiheadAttention' in result['nothing'] and result['dense']['error'] == ''
    assert faults(result) == []


@pytest.mark.skipif(find_spec('mmpretrain') is not None, reason='the config finds what it imports')
def test_a_config_that_imports_what_is_not_installed():
    result = try_small('mmseg', 'convnext')
    assert result['dense']['error'] == 'ImportError: Failed to import mmpretrain.models'


def test_methods_that_cannot_be_tried():
    assert 'video' in try_small('mmdet', 'bytetrack')['outside']
    assert 'unlabelled images' in try_small('mmdet', 'soft_teacher')['outside']
    assert 'installed' in try_small('mmdet', 'sort')['outside']
