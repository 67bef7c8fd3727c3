# One step of compression: the paper's recipe, AdamW with an epoch of warm-up and cosine decay.
# Weights come from `load_from`.
_base_ = './coco_640x640.py'
from mmwcc.models.detection import compound_scaling  # noqa: E402

model = compound_scaling('d1')
model['backbone'].update(init_cfg=None)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=1, end=30, convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=30, val_interval=5)
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=1))
