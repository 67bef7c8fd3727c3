# Stage 1 for CamVid: the auto-encoder alone, on the crops that the segmentor will see.
_base_ = [
    '../_base_/datasets/camvid_256x256.py', 'mmseg::_base_/default_runtime.py', '../_base_/schedules/sgd_poly.py'
]
model = dict(
    type='mmwcc.WAE',
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=_base_.crop_size))
val_evaluator = dict(_delete_=True, type='mmwcc.ReconstructionPSNR')
test_evaluator = dict(_delete_=True, type='mmwcc.ReconstructionPSNR')
optim_wrapper = dict(optimizer=dict(_delete_=True, type='Adam', lr=2e-3))
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=400, by_epoch=False)]
train_cfg = dict(max_iters=400, val_interval=400)
default_hooks = dict(
    checkpoint=dict(interval=400),
    training_stage=dict(type='mmwcc.TrainingStageHook', stage=1, stages=2, note='the auto-encoder alone'),
    wae_figure=dict(type='mmwcc.WAEFigureHook', num_images=2))
randomness = dict(seed=0)
