"""What mmdetection and torch put around a whole model: a teacher, and shards of its parameters."""

import copy

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.distributed.fsdp
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope

pytest.importorskip('mmdet', exc_type=ImportError)

from mmwcc.compression import compress_model  # noqa: E402
from mmwcc.presets import preset  # noqa: E402
from mmwcc.quantizers import UniformQuantizer  # noqa: E402
from mmwcc.utils import build_model, quiet  # noqa: E402
from mmwcc.zoo import random_batch  # noqa: E402

DETECTOR = """
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py']
model = dict(
    data_preprocessor=dict(_delete_=True, type='DetDataPreprocessor'),
    backbone=dict(depth=18, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=32),
                  bbox_head=dict(in_channels=32, fc_out_channels=64, num_classes=3)),
    train_cfg=dict(rpn_proposal=dict(max_per_img=16)), test_cfg=dict(rpn=dict(max_per_img=16)))
"""
BRANCHES = ('sup', 'unsup_teacher', 'unsup_student')


@pytest.fixture
def soft_teacher(tmp_path):
    """SoftTeacher around two small detectors, compressed as a whole, and a batch for it."""
    (tmp_path / 'detector.py').write_text(DETECTOR)
    detector = Config.fromfile(tmp_path / 'detector.py')
    one = random_batch('mmdet', detector, 64)
    for sample in one['data_samples']:
        sample.set_metainfo(dict(homography_matrix=np.eye(3, dtype=np.float32)))
    batch = {
        part: {name: copy.deepcopy(values) for name in BRANCHES} for part, values in one.items()
    }
    model = dict(
        type='SoftTeacher',
        detector=detector.model,
        data_preprocessor=dict(
            type='MultiBranchDataPreprocessor', data_preprocessor=dict(type='DetDataPreprocessor')
        ),
        semi_train_cfg=dict(
            freeze_teacher=True,
            pseudo_label_initial_score_thr=0.0,
            rpn_pseudo_thr=0.0,
            cls_pseudo_thr=0.0,
            reg_pseudo_thr=0.02,
            jitter_times=1,
            jitter_scale=0.06,
            min_pseudo_bbox_wh=(1e-2, 1e-2),
        ),
        semi_test_cfg=dict(predict_on='teacher'),
    )
    torch.manual_seed(0)
    with quiet(), DefaultScope.overwrite_default_scope('mmdet'):
        network = build_model(Config(dict(model=model, default_scope='mmdet')))
        compress_model(network, preset('wcc_w8a8_k50').to_dict(), verbose=False)
        yield network, batch


def test_a_student_and_its_teacher(soft_teacher):
    """Both are compressed alike, and the frozen stage of the teacher learns its clips too."""
    from mmdet.engine.hooks import MeanTeacherHook

    model, batch = soft_teacher
    student, teacher = (
        {name: value.shape for name, value in network.named_parameters()}
        for network in (model.student, model.teacher)
    )
    assert student == teacher and 'backbone.conv1.act_quant.clip_alpha' not in student

    hook = MeanTeacherHook(momentum=0.5)
    hook.momentum_update(model, 1)
    optimizer = OptimWrapper(torch.optim.SGD(model.student.parameters(), lr=1e-3))
    for _ in range(2):
        losses = model.train().train_step(copy.deepcopy(batch), optimizer)
        assert all(torch.isfinite(value).all() for value in losses.values())
        hook.momentum_update(model, 0.5)
    assert not model.teacher.backbone.layer1.training
    unlearned = [
        name
        for name, module in model.teacher.named_modules()
        if isinstance(module, UniformQuantizer) and not module.is_settled
    ]
    assert unlearned == []
    images = {part: values['sup'] for part, values in batch.items()}
    with torch.no_grad():
        predictions = model.eval().test_step(images)
    assert len(predictions) == 2


@pytest.fixture
def one_rank():
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.skipif(
    not hasattr(torch.distributed.fsdp, 'fully_shard'), reason='older torch has no fully_shard here'
)
def test_a_sharded_segmentor_trains_as_without(segmentor_config, one_rank):
    """The backbone, the head and the rest, sharded by FSDP2 before they have learned a clip."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    batch = random_batch('mmseg', segmentor_config, 64)
    states = []
    for shard in (False, True):
        torch.manual_seed(0)
        with quiet():
            model = build_model(segmentor_config)
        model.decode_head.dropout = None
        if shard:
            mesh = init_device_mesh('cpu', (1,))
            for part in (model.backbone, model.decode_head, model):
                fully_shard(part, mesh=mesh)
            for method in ('loss', 'predict'):  # mmseg does not call the head itself
                register_fsdp_forward_method(model.decode_head, method)
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
        for _ in range(2):
            model.train().train_step(copy.deepcopy(batch), optimizer)
        with torch.no_grad():
            predictions = model.eval().test_step(copy.deepcopy(batch))
        assert len(predictions) == 2
        states.append(
            {
                name: value.full_tensor() if hasattr(value, 'full_tensor') else value
                for name, value in model.state_dict().items()
            }
        )
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-6, msg=name)
    quantizers = [name for name in states[0] if name.endswith('quant.initialized')]
    assert quantizers and all(states[1][name] for name in quantizers)
