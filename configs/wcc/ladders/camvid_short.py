# The ladder of camvid.py for a machine without a GPU: 120 iterations of batch 4, every fourth test
# image.
# python tools/analysis_tools/run_ladder.py configs/wcc/ladders/camvid_short.py --only required
_base_ = './camvid.py'
recipe = dict(
    param_scheduler=[dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=120, by_epoch=False)],
    train_cfg=dict(max_iters=120),
    train_dataloader=dict(batch_size=4, num_workers=1),
    test_dataloader=dict(num_workers=1, dataset=dict(indices=[*range(0, 233, 4)])),
    default_hooks=dict(logger=dict(interval=10), checkpoint=dict(interval=20)))
