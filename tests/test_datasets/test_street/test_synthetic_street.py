import pickle
import subprocess
import sys

import numpy as np
import pytest
from mmdet.registry import TRANSFORMS as MMDET_TRANSFORMS
from mmdet.utils import register_all_modules as register_mmdet
from mmengine.dataset import Compose
from mmengine.registry import DATASETS
from mmseg.registry import TRANSFORMS as MMSEG_TRANSFORMS
from mmseg.utils import register_all_modules as register_mmseg

from mmwcc.datasets import LoadSyntheticStreet, SyntheticStreetDataset, render_street

SCALE = (96, 64)


def make(**kwargs):
    return SyntheticStreetDataset(
        **{**dict(length=3, img_scale=SCALE, pipeline=[LoadSyntheticStreet()]), **kwargs}
    )


def through(registry, dataset, steps):
    return Compose([registry.build(step) for step in steps])(dataset[0])


def test_build_from_a_config_by_scoped_names():
    dataset = DATASETS.build(
        dict(
            type='mmwcc.SyntheticStreetDataset',
            length=2,
            img_scale=SCALE,
            pipeline=[dict(type='mmwcc.LoadSyntheticStreet')],
        )
    )
    assert len(dataset) == 2
    results = dataset[1]
    assert results['img'].shape == (64, 96, 3) and results['ori_shape'] == results['img_shape'] == (
        64,
        96,
    )
    assert (results['height'], results['width'], results['img_id']) == (64, 96, 1)
    np.testing.assert_array_equal(results['img'], render_street(0, 1, (64, 96)).image)


def test_metainfo_follows_the_task():
    assert make().metainfo['classes'][0] == 'sky' and len(make().metainfo['palette']) == 9
    detection = make(task='detection').metainfo
    assert detection['classes'] == ('sign', 'car', 'pedestrian')
    assert detection['palette'] == [(192, 128, 128), (64, 0, 128), (64, 64, 0)]


def test_splits_and_seeds_share_no_scene():
    seen = set()
    for seed in range(3):
        for split in ('train', 'val', 'test'):
            entries = make(seed=seed, split=split).load_data_list()
            keys = {(e['street_seed'], e['street_index']) for e in entries}
            assert len(keys) == 3 and not keys & seen
            seen |= keys
    assert (make(split='train')[0]['img'] != make(split='val')[0]['img']).any()


def test_cache_changes_nothing_but_speed():
    cached, fresh = make(cache=True), make(cache=False)
    first = cached[0]
    np.testing.assert_array_equal(first['img'], fresh[0]['img'])
    first['img'][:] = 0
    first['gt_seg_map'][:] = 0
    np.testing.assert_array_equal(cached[0]['img'], fresh[0]['img'])
    np.testing.assert_array_equal(cached[0]['gt_seg_map'], fresh[0]['gt_seg_map'])


def test_all_scenes_are_rendered_at_once(monkeypatch):
    from mmwcc.datasets.street import synthetic_street

    one_by_one = [make(cache=False)[index] for index in range(3)]
    monkeypatch.setattr(synthetic_street, '_SCENES', {})
    dataset = make()
    dataset.render_all(processes=2)
    assert len(synthetic_street._SCENES) == 3
    monkeypatch.delattr(synthetic_street, 'render_street')  # nothing is left to render
    for expected, scene in zip(one_by_one, dataset, strict=True):
        np.testing.assert_array_equal(scene['img'], expected['img'])
        np.testing.assert_array_equal(scene['gt_seg_map'], expected['gt_seg_map'])
    dataset.render_all()


def test_what_is_not_kept_is_not_rendered_at_once():
    with pytest.raises(RuntimeError, match='render_all needs cache=True, got False'):
        make(cache=False).render_all()


def test_cache_keeps_scenes(monkeypatch):
    import mmwcc.datasets.street.synthetic_street as module

    calls = []
    original = module.render_street
    monkeypatch.setattr(
        module, 'render_street', lambda *args: calls.append(args) or original(*args)
    )
    monkeypatch.setattr(module, '_SCENES', {})
    for cache, count in ((True, 1), (False, 3)):
        calls.clear()
        dataset = make(cache=cache)
        dataset[2], dataset[2]
        make(cache=cache)[2]
        assert len(calls) == count


def test_indices_and_pickle_keep_the_scenes():
    dataset = make(indices=[2])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset))[0]['img'], make()[2]['img'])


def test_mmseg_pipeline_runs_after_the_loader():
    register_mmseg(init_default_scope=False)
    steps = [
        dict(type='RandomCrop', crop_size=(48, 64), cat_max_ratio=0.75),
        dict(type='RandomFlip', prob=1.0),
        dict(type='PhotoMetricDistortion'),
        dict(type='PackSegInputs'),
    ]
    packed = through(MMSEG_TRANSFORMS, make(pipeline=[LoadSyntheticStreet(with_depth=True)]), steps)
    sample = packed['data_samples']
    assert packed['inputs'].shape == (3, 48, 64)
    assert sample.gt_sem_seg.data.shape == sample.gt_depth_map.data.shape == (1, 48, 64)
    assert (
        sample.metainfo['img_path'].endswith('000000.png')
        and sample.metainfo['reduce_zero_label'] is False
    )
    # The depth was cropped and flipped with the labels: the sky of the one is the sky of the other.
    assert ((sample.gt_sem_seg.data == 0) == (sample.gt_depth_map.data == 0)).all()


def test_mmdet_pipeline_runs_after_the_loader():
    register_mmdet(init_default_scope=False)
    dataset = make(task='detection')
    steps = [
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(192, 128), keep_ratio=True),
        dict(type='RandomFlip', prob=1.0),
        dict(type='PackDetInputs'),
    ]
    packed = through(MMDET_TRANSFORMS, dataset, steps)
    scene = render_street(0, 0, (64, 96))
    boxes, found = scene.boxes * 2, packed['data_samples'].gt_instances
    assert len(boxes) > 0 and packed['inputs'].shape == (3, 128, 192)
    expected = np.stack([192 - boxes[:, 2], boxes[:, 1], 192 - boxes[:, 0], boxes[:, 3]], 1)
    np.testing.assert_allclose(
        found.bboxes.tensor.numpy() if hasattr(found.bboxes, 'tensor') else found.bboxes,
        expected,
        atol=1e-3,
    )
    assert found.labels.tolist() == scene.box_labels.tolist()
    assert packed['data_samples'].metainfo['img_id'] == 0


@pytest.mark.parametrize(
    'kwargs, error, words',
    [
        (dict(length=0), ValueError, 'length must be at least 1, got 0'),
        (dict(length=2.5), TypeError, 'length must be a whole number'),
        (dict(seed=-1), ValueError, 'seed must be at least 0'),
        (dict(img_scale=(96, 4)), ValueError, 'img_scale must be'),
        (dict(img_scale=(96,)), ValueError, 'img_scale must be'),
        (dict(split='dev'), ValueError, "split must be one of .*got 'dev'"),
        (dict(task='depth'), ValueError, "task must be one of .*got 'depth'"),
    ],
)
def test_bad_arguments_are_refused(kwargs, error, words):
    with pytest.raises(error, match=f'SyntheticStreetDataset: {words}'):
        make(**kwargs)


def test_loader_refuses_other_entries():
    with pytest.raises(KeyError, match='must come from mmwcc.SyntheticStreetDataset'):
        LoadSyntheticStreet()(dict(img_path='a.png'))


def test_import_needs_neither_mmseg_nor_mmdet():
    code = (
        'import sys\nfrom importlib.machinery import PathFinder\n'
        'class Hide:\n    @staticmethod\n    def find_spec(name, path=None, target=None):\n'
        "        if name.split('.')[0] in ('mmseg', 'mmdet', 'mmcv'):\n"
        '            raise ModuleNotFoundError(name)\n'
        'import importlib.util as u\noriginal = u.find_spec\n'
        "u.find_spec = lambda name, package=None: None if name in ('mmseg', 'mmdet') else "
        'original(name, package)\n'
        'sys.meta_path.insert(0, Hide)\n'
        'import mmwcc.datasets as d\n'
        "assert not hasattr(d, 'CamVidDataset')\n"
        'print(len(d.SyntheticStreetDataset(length=2)))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == '2'
