# The common settings of every classification run; mmsegmentation and mmdetection have a
# default_runtime.py for the same purpose.
default_scope = 'mmengine'
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    compression_check=dict(type='mmwcc.CompressionCheckHook'),
    random_state=dict(type='mmwcc.RandomStateHook'))
env_cfg = dict(
    cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl'))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
log_level = 'INFO'
load_from = None
resume = False
