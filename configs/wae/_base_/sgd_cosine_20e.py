# SGD for small images.
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=5e-4, begin=0, end=20, by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=5)
