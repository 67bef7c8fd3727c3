"""What compression gains in networks of mmsegmentation and mmdetection, and which it warns of."""

from pathlib import Path

import pytest

pytest.importorskip('mmseg', reason='counts its networks', exc_type=ImportError)
pytest.importorskip('mmdet', reason='counts its networks', exc_type=ImportError)

import mmdet  # noqa: E402
import mmseg  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.registry import MODELS, DefaultScope  # noqa: E402

from mmwcc.compression import compress_model, expected_gain  # noqa: E402
from mmwcc.presets import preset  # noqa: E402

FOLDERS = {
    library.__name__: Path(library.__file__).parent / '.mim/configs' for library in (mmseg, mmdet)
}


def without_weights(value):
    """Return a config whose parts start from no weights and normalize in one process."""
    if isinstance(value, dict):
        kept = {key: without_weights(item) for key, item in value.items() if key != 'init_cfg'}
        if kept.get('type') == 'SyncBN':
            kept['type'] = 'BN'
        return {**kept, 'pretrained': None} if 'pretrained' in kept else kept
    return [without_weights(item) for item in value] if isinstance(value, (list, tuple)) else value


def compressed(library, name, compression, **changes):
    """Build a network of a library's config and compress it by a preset."""
    config = Config.fromfile(FOLDERS[library] / name)
    config.merge_from_dict(changes)
    with DefaultScope.overwrite_default_scope(library):
        model = MODELS.build(without_weights(config.model.to_dict()))
    compress_model(model, preset(compression), verbose=False)
    return model


def saved(gain):
    return 1 - gain.cost.total.macs / gain.dense_macs


@pytest.mark.parametrize(
    ('library', 'config', 'size', 'share'),
    [
        ('mmseg', 'pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py', (128, 256), 1.0),
        ('mmseg', 'bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py', (512, 512), 1.5),
        ('mmdet', 'retinanet/retinanet_r18_fpn_1x_coco.py', (192, 256), 0.5),
    ],
)
def test_networks_of_3x3_convolutions_gain_little_by_wavelets(library, config, size, share):
    gain = expected_gain(compressed(library, config, 'wcc_w8a8_k25'), size)
    assert 100 * saved(gain) == pytest.approx(share, abs=0.05)
    assert f'Wavelets save only {share}% of the MACs.' in gain.warning
    assert 'Conv2d 3x3 without wavelets has 9' in gain.warning and 'separate=' in gain.warning
    assert gain.parts[0].kind == 'Conv2d 3x3'


@pytest.mark.slow
def test_a_network_with_more_1x1_convolutions_gains_enough():
    config = 'hrnet/fcn_hr18_4xb2-40k_cityscapes-512x1024.py'
    gain = expected_gain(compressed('mmseg', config, 'wcc_w8a8_k25'), (128, 256))
    assert 100 * saved(gain) == pytest.approx(14.1, abs=0.05) and gain.warning == ''


def test_attention_keeps_most_bit_operations_in_full_precision():
    config = 'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'
    classes = {'model.decode_head.num_classes': 11}
    gain = expected_gain(compressed('mmseg', config, 'wcc_w8a8_k50', **classes), (360, 480))
    assert gain.cost.total.total_bops / 1e9 == pytest.approx(977, abs=0.5)
    assert sum(part.bops for part in gain.dense_parts) / 1e9 == pytest.approx(822, abs=0.5)
    assert gain.dense_parts[0].kind == 'products of MultiheadAttention'
    assert gain.dense_parts[0].layers == 8
    assert gain.warning.startswith(
        '84% of the remaining bit operations are in full precision, most of them in products of '
        'MultiheadAttention (76%). Only nn.Conv2d and nn.Linear are compressed'
    )


def test_channel_attention_costs_what_it_does_in_the_dense_network():
    model = compressed('mmdet', 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 'wcc_w8a8_k50')
    gain = expected_gain(model, (128, 128))
    attention = [layer for layer in gain.cost.layers if layer.name.endswith('attention.fc')]
    assert len(attention) == 4 and {layer.kind for layer in attention} == {'quantized'}
    widths = [layer.geometry.pointwise[0] for layer in attention]
    assert [layer.macs for layer in attention] == [width**2 for width in widths]
