"""Hooks find a layer that a model shares under all its names."""

import torch
from mmengine.registry import MODELS
from toy_training import COMPRESSION, ToySegmentor, toy_runner

from mmwcc.checkpoint import read_stamp

SHARING = dict(COMPRESSION, keep_dense=['stem', 'classify'])


@MODELS.register_module(force=True)
class ToySharing(ToySegmentor):
    """Uses one layer in two places, as the levels of a head do."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.again = self.point


def test_hooks_and_checkpoints_know_all_names(tmp_path):
    dense = dict(type='ToySharing')
    off = dict(compression_schedule=None, compression_check=None)
    toy_runner(tmp_path / 'dense', compression=None, model=dense, length=1, hooks=off).train()
    hooks = dict(
        off,
        stats=dict(type='mmwcc.CompressionStatsHook', interval=1, layers=['again']),
        figure=dict(type='mmwcc.FeatureCompressionVisHook', layers=['again']),
        distillation=dict(
            type='mmwcc.DistillationHook',
            checkpoint=str(tmp_path / 'dense' / 'iter_1.pth'),
            logits='classify',
            features={'again': 0.5},
        ),
    )
    settings = dict(
        model=dict(type='mmwcc.CompressedModel', task_type='ToySharing', compression=SHARING),
        val_interval=1,
    )
    runner = toy_runner(tmp_path / 'sharing', hooks=hooks, length=1, **settings)
    runner.train()
    assert 'distillation.loss_features' in str(runner.message_hub.log_scalars.keys())
    path = str(tmp_path / 'sharing' / 'iter_1.pth')
    stamp = read_stamp(torch.load(path, weights_only=False))
    assert set(stamp['layers']) == {'point', 'again', 'spatial'}
    toy_runner(tmp_path / 'sharing', hooks=off, length=2, resume=True, **settings).train()
    toy_runner(tmp_path / 'sharing', hooks=off, load_from=path, **settings).test()
