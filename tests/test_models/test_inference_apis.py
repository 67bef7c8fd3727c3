"""Compressed checkpoints in the inference APIs of mmsegmentation and mmdetection."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from mmwcc.compressed_config import without_compression
from mmwcc.inference import to_integer
from mmwcc.model_tree.compressed import compressed_layers


def train(config) -> str:
    """Train two iterations, once a session for each config, and return the checkpoint."""
    checkpoint = Path(config.work_dir) / 'iter_2.pth'
    if not checkpoint.exists():
        config = copy.deepcopy(config)
        config.pop(
            'test_dataloader'
        )  # only the inference APIs look at it; a runner wants an evaluator with it
        runner = Runner.from_cfg(config)
        runner.train()
        losses = runner.message_hub.get_scalar('train/loss').data[0]
        assert len(losses) == 2 and np.isfinite(losses).all()
    return str(checkpoint)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def assert_calibrated(model) -> None:
    layers = compressed_layers(model).values()
    assert layers
    assert all(
        bool(layer.act_quant.initialized) and bool(layer.weight_quant.initialized)
        for layer in layers
    )


def test_mmseg_init_model_and_inference_model(segmentor_config, image):
    from mmseg.apis import inference_model, init_model

    model = init_model(copy.deepcopy(segmentor_config), train(segmentor_config), device='cpu')
    assert_calibrated(model)
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*evaluated before its clip was learned')
        result = inference_model(model, image)
    assert result.pred_sem_seg.data.shape == (1, 64, 96)


def test_mmseg_inferencer(segmentor_config, image):
    from mmseg.apis import MMSegInferencer

    path = Path(segmentor_config.work_dir).parent / 'dumped.py'
    segmentor_config.dump(path)
    inferencer = MMSegInferencer(str(path), train(segmentor_config), device='cpu')
    assert_calibrated(inferencer.model)
    assert inferencer(image, show=False)['predictions'].shape == (64, 96)


def dense_checkpoint(config, folder) -> str:
    """Write a checkpoint of the dense model of a config, as other projects publish them."""
    from mmengine.registry import MODELS, init_default_scope

    init_default_scope(config.default_scope)
    model = MODELS.build(without_compression(copy.deepcopy(config.model)))
    meta = dict(dataset_meta=dict(classes=['a'] * 9, palette=[[0, 0, 0]] * 9))
    torch.save(dict(meta=meta, state_dict=model.state_dict()), folder / 'dense.pth')
    return str(folder / 'dense.pth')


def without_quantizers(config):
    """Return a config whose model is wavelet compressed in floating point."""
    config = copy.deepcopy(config)
    config.model.compression.update(weight_quant=None, act_quant=None, other=None)
    return config


@pytest.mark.parametrize('change', [copy.deepcopy, without_quantizers])
def test_mmseg_refuses_to_infer_with_dense_weights(segmentor_config, image, tmp_path, change):
    from mmseg.apis import MMSegInferencer, inference_model, init_model

    config, checkpoint = change(segmentor_config), dense_checkpoint(segmentor_config, tmp_path)
    model = init_model(copy.deepcopy(config), checkpoint, device='cpu')
    words = '^EncoderDecoder: to be evaluated, .*got a checkpoint that is dense.*: backbone'
    with pytest.raises(RuntimeError, match=words):
        inference_model(model, image)
    config.dump(tmp_path / 'dumped.py')
    inferencer = MMSegInferencer(str(tmp_path / 'dumped.py'), checkpoint, device='cpu')
    with pytest.raises(RuntimeError, match=words):
        inferencer(image, show=False)


def test_mmseg_refuses_integers_in_a_float_model(segmentor_config, tmp_path):
    from mmseg.apis import init_model

    checkpoint = torch.load(train(segmentor_config), weights_only=False)
    model = init_model(copy.deepcopy(segmentor_config), train(segmentor_config), device='cpu')
    to_integer(model, verbose=False)
    checkpoint['state_dict'] = model.state_dict()
    torch.save(checkpoint, tmp_path / 'integer.pth')
    with pytest.raises(RuntimeError, match='an integer checkpoint needs an integer model, got one'):
        init_model(copy.deepcopy(segmentor_config), str(tmp_path / 'integer.pth'), device='cpu')


def test_mmseg_test_time_augmentation(segmentor_config, image):
    from mmengine.dataset import Compose
    from mmengine.registry import init_default_scope

    init_default_scope('mmseg')
    from mmseg.registry import MODELS

    config = copy.deepcopy(segmentor_config)
    model = MODELS.build(dict(**config.tta_model, module=config.model))
    model.module.load_state_dict(
        torch.load(train(segmentor_config), weights_only=False)['state_dict']
    )
    path = Path(segmentor_config.work_dir).parent / 'image.png'
    import cv2

    cv2.imwrite(str(path), image)
    data = Compose(config.tta_pipeline)(dict(img_path=str(path)))
    with torch.no_grad():
        result = model.eval().test_step(
            {key: [[view] for view in views] for key, views in data.items()}
        )
    assert result[0].pred_sem_seg.data.shape == (1, 64, 96)


def test_mmdet_refuses_to_infer_with_dense_weights(detector_config, image, tmp_path):
    from mmdet.apis import inference_detector, init_detector

    checkpoint = dense_checkpoint(detector_config, tmp_path)
    model = init_detector(copy.deepcopy(detector_config), checkpoint, device='cpu', palette='coco')
    with pytest.raises(RuntimeError, match='^RetinaNet: to be evaluated, .*dense: backbone'):
        inference_detector(model, image)


def test_mmdet_retinanet_trains_and_loads(detector_config, image):
    from mmdet.apis import inference_detector, init_detector
    from mmdet.models import RetinaNet

    model = init_detector(
        copy.deepcopy(detector_config), train(detector_config), device='cpu', palette='coco'
    )
    assert type(model) is RetinaNet
    assert_calibrated(model)
    assert {type(model.bbox_head.retina_cls), type(model.bbox_head.retina_reg)} == {torch.nn.Conv2d}
    assert inference_detector(model, image).pred_instances.bboxes.shape[1] == 4
