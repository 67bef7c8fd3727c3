"""The methods that the model indices of the libraries list, and their configs made small."""

from pathlib import Path

import pytest

pytest.importorskip('mmseg', exc_type=ImportError)
pytest.importorskip('mmdet', exc_type=ImportError)

from mmwcc.zoo import Method, methods, random_batch, stock_config  # noqa: E402


def named(library: str, name: str) -> Method:
    return next(method for method in methods(library) if method.name == name)


@pytest.mark.parametrize(('library', 'number'), [('mmseg', 52), ('mmdet', 101)])
def test_every_entry_of_the_model_index_is_a_method(library, number):
    found = methods(library)
    assert len(found) == number
    assert [method.name for method in found] == sorted(method.name for method in found)
    missing = [method.name for method in found if method.config is None]
    assert missing == ([] if library == 'mmseg' else ['sort'])


def test_configs_that_a_metafile_writes_in_other_ways():
    """As in an address, and without the folder."""
    assert named('mmdet', 'gn+ws').config.name == 'faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py'
    assert named('mmdet', 'albu_example').config.name == 'mask-rcnn_r50_fpn_albu-1x_coco.py'


def test_another_library():
    with pytest.raises(ValueError, match="library must be one of mmseg, mmdet, got 'mmpose'"):
        methods('mmpose')


def test_a_small_config_of_a_segmentor():
    model = stock_config(named('mmseg', 'segmenter'), 64).model
    assert model.data_preprocessor.size == (64, 64)
    assert model.pretrained is None and model.backbone.img_size == (64, 64)


def test_a_small_config_of_a_detector():
    model = stock_config(named('mmdet', 'mask_rcnn'), 64).model
    assert model.backbone.init_cfg is None
    assert model.train_cfg.rpn_proposal.max_per_img == model.test_cfg.rpn.max_per_img == 16
    assert stock_config(named('mmdet', 'yolox'), 64).model.data_preprocessor.batch_augments is None


@pytest.mark.parametrize(
    ('name', 'masks', 'proposals'),
    [('rtmdet', False, False), ('mask_rcnn', True, False), ('cascade_rpn', False, True)],
)
def test_batches_have_the_labels_that_the_config_loads(name, masks, proposals):
    batch = random_batch('mmdet', stock_config(named('mmdet', name), 64), 64)
    assert len(batch['inputs']) == len(batch['data_samples']) == 2
    for image, sample in zip(*batch.values(), strict=True):
        assert image.shape == (3, 64, 64)
        assert ('masks' in sample.gt_instances) == masks
        assert ('proposals' in sample) == proposals
        assert sample.gt_instances.bboxes.tensor.max() <= 64
        assert sample.gt_instances.labels.max() < 80


def test_labels_suit_the_head_with_the_fewest_classes():
    samples = random_batch('mmseg', stock_config(named('mmseg', 'pspnet'), 20), 20)['data_samples']
    labels = samples[0].gt_sem_seg.data
    assert labels.shape == (1, 20, 20) and labels.min() >= 0 and labels.max() < 19


def test_keys_tell_methods_of_two_libraries_apart():
    assert Method('mmseg', 'hrnet', Path()).key != Method('mmdet', 'hrnet', Path()).key
