# SGD at 0.01, divided by 10 when the accuracy stops rising. The paper does not say how long it
# trained; 90 epochs are our choice.
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4))
param_scheduler = [
    dict(
        type='ReduceOnPlateauLR',
        monitor='accuracy/top1',
        rule='greater',
        factor=0.1,
        patience=5,
        begin=0,
        end=90,
        by_epoch=True)
]
train_cfg = dict(by_epoch=True, max_epochs=90, val_interval=1)
auto_scale_lr = dict(enable=False, base_batch_size=256)
