"""A small segmentor, its data and its config, to run real mmengine runners in seconds.

As a script, it starts runs that die.

``python toy_training.py jobs.json`` runs every job of the file in a process of its own, one after
the other. A job is ``dict(overrides=..., kill=None or ['train' or 'val', iteration])``, or
``dict(overrides=..., ranks=n)`` for n processes that train together; its exit code must be that of
a killed process where it is to be killed and 0 elsewhere.
"""

import json
import os
import random
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

import mmwcc  # noqa: F401  its compatibility layer lets mmengine read its own checkpoints

COMPRESSION = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.25, levels=2),
    other=dict(type='mmwcc.QuantConv2d'),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=4),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=4),
)
WCC_LAYER, QUANT_LAYER = 'point', 'spatial'

KEEP_RATIO = dict(type='step', steps=[(0, 1.0), (4, 0.5), (8, 0.25)])
ACT_BITS = dict(type='step', steps=[(0, 32), (3, 8), (7, 4)])
WEIGHT_BITS = dict(type='linear', begin=2, end=9, start=16, stop=4)


@MODELS.register_module(force=True)
class ToySegmentor(BaseModel):
    """Two dense convolutions around one that becomes a WCC layer and one that becomes a quantized
    one.
    """

    def __init__(self, width=8, dropout=0.2, norm_eval=False, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.norm_eval = norm_eval
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.point = nn.Conv2d(width, width, 1)
        self.norm1 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.spatial = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width)
        self.classify = nn.Conv2d(width, 2, 1)

    def train(self, mode=True):
        super().train(mode)
        if self.norm_eval:
            self.norm1.eval(), self.norm2.eval()
        return self

    def forward(self, inputs, labels, mode='tensor'):
        x = torch.relu(self.stem(torch.stack(list(inputs))))
        x = self.dropout(torch.relu(self.norm1(self.point(x))))
        x = self.classify(torch.relu(self.norm2(self.spatial(x))))
        if mode == 'loss':
            return dict(loss=F.cross_entropy(x, torch.stack(list(labels))))
        return x if mode == 'tensor' else list(x.argmax(1))


@DATASETS.register_module(force=True)
class ToyImages(Dataset):
    """Fixed images with random numpy, python and torch augmentation."""

    def __init__(self, size=12, augment=True):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(size, 3, 8, 10, generator=generator)
        self.labels = (self.images.mean(1) > 0.5).long()
        self.augment = augment

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image, label = self.images[index], self.labels[index]
        if self.augment:
            image = image * np.float32(np.random.uniform(0.8, 1.2)) + np.float32(
                np.random.normal(0, 0.05)
            )
            image = image + 0.01 * torch.rand(image.shape)
            if random.random() < 0.5:
                image, label = image.flip(-1), label.flip(-1)
        return dict(inputs=image, labels=label)


@METRICS.register_module(force=True)
class ToyAccuracy(BaseMetric):
    """Fraction of pixels labelled right, and how often it was computed, which always improves."""

    evaluations = 0

    def process(self, data_batch, data_samples):
        for predicted, label in zip(data_samples, data_batch['labels'], strict=True):
            self.results.append(float((predicted == label).float().mean()))

    def compute_metrics(self, results):
        self.evaluations += 1
        return dict(accuracy=sum(results) / len(results), evaluations=self.evaluations)


@HOOKS.register_module(force=True)
class KillHook(Hook):
    """End the process as ``kill -9`` does, after the checkpoint of an iteration or within the
    validation after it.
    """

    priority = 'LOWEST'

    def __init__(self, where, iteration):
        self.where, self.iteration = where, iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.where == 'train' and runner.iter + 1 == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if self.where == 'val' and runner.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


class QuickConfig(Config):
    """A config that is not formatted with yapf, which takes longer than training here."""

    @property
    def pretty_text(self):
        return ''.join(f'{key} = {value!r}\n' for key, value in self.to_dict().items())


def toy_config(
    work_dir,
    by_epoch=False,
    compression=COMPRESSION,
    length=None,
    val_interval=None,
    hooks=None,
    save_interval=1,
    **overrides,
):
    """Return a config: 12 iterations of batch 3, or 4 epochs of 3 iterations, with all three hooks.

    ``hooks`` is merged over the default hooks; a hook of None is left out. ``overrides`` replace
    top-level keys.
    """
    model = (
        dict(type='ToySegmentor')
        if compression is None
        else dict(type='mmwcc.CompressedModel', task_type='ToySegmentor', compression=compression)
    )
    default_hooks = dict(
        checkpoint=dict(type='CheckpointHook', interval=save_interval, by_epoch=by_epoch),
        logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=by_epoch),
        compression_schedule=dict(
            type='mmwcc.CompressionScheduleHook',
            keep_ratio=KEEP_RATIO,
            act_bits=ACT_BITS,
            weight_bits=WEIGHT_BITS,
        ),
        compression_check=dict(type='mmwcc.CompressionCheckHook'),
        random_state=dict(type='mmwcc.RandomStateHook'),
    )
    default_hooks.update(hooks or {})
    train_cfg = (
        dict(by_epoch=True, max_epochs=length or 4)
        if by_epoch
        else dict(by_epoch=False, max_iters=length or 12)
    )
    cfg = dict(
        default_scope='mmengine',
        work_dir=str(work_dir),
        model=model,
        train_dataloader=dict(
            batch_size=3,
            num_workers=0,
            dataset=dict(type='ToyImages', size=9),
            sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True),
        ),
        train_cfg=dict(train_cfg, val_interval=val_interval or 10**6),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
        param_scheduler=[
            dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=12, by_epoch=False)
        ],
        default_hooks={name: hook for name, hook in default_hooks.items() if hook is not None},
        log_processor=dict(by_epoch=by_epoch),
        randomness=dict(seed=1),
        log_level='WARNING',
    )
    loader = dict(
        batch_size=2,
        num_workers=0,
        dataset=dict(type='ToyImages', size=4),
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    if val_interval is not None:
        cfg.update(val_dataloader=loader, val_cfg=dict(), val_evaluator=dict(type='ToyAccuracy'))
    cfg.update(test_dataloader=loader, test_cfg=dict(), test_evaluator=dict(type='ToyAccuracy'))
    return QuickConfig({**cfg, **overrides})


_COUNT = 0


def toy_runner(work_dir, **kwargs):
    """Build the runner of :func:`toy_config`, under a name of its own, for mmengine keeps one
    logger a name.
    """
    global _COUNT
    _COUNT += 1
    return Runner.from_cfg(
        toy_config(work_dir, experiment_name=f'toy-{os.getpid()}-{_COUNT}', **kwargs)
    )


def _run_job(job, rank):
    torch.set_num_threads(1)
    overrides = dict(job['overrides'])
    hooks = dict(overrides.pop('hooks', {}))
    if job.get('kill'):
        hooks['kill'] = dict(type='KillHook', where=job['kill'][0], iteration=job['kill'][1])
    if 'ranks' in job:
        # mmengine's own start of a process group selects a CUDA device first.
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(job['ranks']))
        store = Path(overrides['work_dir']).with_suffix('.store')
        torch.distributed.init_process_group(
            'gloo', init_method=f'file://{store}', rank=rank, world_size=job['ranks']
        )
        wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None)
        overrides.update(launcher='pytorch', model_wrapper_cfg=wrapper)
    runner = toy_runner(hooks=hooks, **overrides)
    runner.train()
    if 'ranks' in job:
        torch.save(
            runner.model.module.state_dict(), Path(overrides['work_dir']) / f'rank{rank}.pth'
        )
        torch.distributed.barrier()


def _fork(job, rank):
    child = os.fork()
    if child == 0:
        try:
            _run_job(job, rank)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return child


def _wait(child):
    status = os.waitpid(child, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def main(path):
    # Imported once, before the children are forked, and before anything has computed or started a
    # thread.
    import_module('matplotlib.pyplot')
    import_module('mmwcc.models')
    import_module('mmwcc.engine.hooks')
    for job in json.loads(Path(path).read_text()):
        children = [_fork(job, rank) for rank in range(job.get('ranks', 1))]
        codes = {_wait(child) for child in children}
        if codes != {-signal.SIGKILL if job.get('kill') else 0}:
            sys.exit(f'{job} ended with {codes}.')


def run_jobs(folder, jobs):
    """Run jobs through this file as a script, and fail with what it printed."""
    path = Path(folder) / 'jobs.json'
    path.write_text(json.dumps(jobs))
    # numba takes three seconds to start in each process, which is longer than any job here runs.
    done = subprocess.run(
        [sys.executable, __file__, str(path)],
        capture_output=True,
        text=True,
        timeout=600,
        env=dict(os.environ, MMWCC_KERNELS='reference'),
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


if __name__ == '__main__':
    main(sys.argv[1])
