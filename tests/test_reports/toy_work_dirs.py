"""Fabricated work folders of a tiny network, as mmengine and the hooks of mmwcc write them."""

import json

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn

import mmwcc.models  # noqa: F401  registers CompressedModel

COMPRESSION = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.25, levels=1),
    other=dict(type='mmwcc.QuantConv2d'),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=4),
    keep_dense=['first'],
)


@MODELS.register_module(force=True)
class ToyReportNetwork(BaseModel):
    """A dense stem, a spatial and a pointwise convolution: 3x3, 3x3 and 1x1 at 8 channels."""

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.spatial = nn.Conv2d(8, 8, 3, padding=1)
        self.point = nn.Conv2d(8, 8, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.point(self.spatial(self.stem(inputs)))


def make_config(compression=None, **settings):
    """Return a config with test images of 8x16."""
    model = (
        dict(type='ToyReportNetwork')
        if compression is None
        else dict(
            type='mmwcc.CompressedModel', task_type='ToyReportNetwork', compression=compression
        )
    )
    return Config(
        dict(
            default_scope='mmengine',
            model=model,
            randomness=dict(seed=3),
            test_dataloader=dict(dataset=dict(img_scale=(16, 8))),
            default_hooks=dict(logger=dict(type='LoggerHook', log_metric_by_epoch=False)),
            **settings,
        )
    )


def train_entry(step, loss, **more):
    """Return what training logs."""
    return dict(lr=0.1, loss=loss, time=0.5, data_time=0.1, iter=step, step=step, **more)


def val_entry(step, miou, **more):
    """Return what validation logs."""
    return dict(mIoU=miou, time=0.5, data_time=0.1, step=step, **more)


def write_run(folder, time, entries, config=None):
    """Write the log of a training, and its config."""
    data = folder / time / 'vis_data'
    data.mkdir(parents=True)
    (data / 'scalars.json').write_text(''.join(json.dumps(entry) + '\n' for entry in entries))
    if config is not None:
        (data / 'config.py').write_text(
            ''.join(f'{key} = {value!r}\n' for key, value in config.to_dict().items())
        )


def write_test(folder, time, **metrics):
    """Write what tools/test.py does."""
    (folder / time).mkdir(parents=True)
    (folder / time / f'{time}.json').write_text(json.dumps(dict(metrics, data_time=0.1, time=0.2)))


def write_checkpoint(folder, stamp, name='iter_40.pth'):
    """Write a checkpoint with a stamp of mmwcc, and point to it by a path that is gone."""
    torch.save(dict(meta=dict(mmwcc=stamp), state_dict=dict(weight=torch.zeros(2))), folder / name)
    (folder / 'last_checkpoint').write_text(f'/gone/{name}')


def write_latency(folder, *medians, out_file='benchmark.json'):
    """Write what BenchmarkHook does, one measurement after the other."""
    rows = [
        dict(
            iter=10 * place,
            contender=contender,
            shape=[1, 3, 8, 16],
            latency_ms=factor * median,
            p95_ms=2 * median,
            throughput=1.0,
            peak_memory_mib=0.5,
        )
        for place, median in enumerate(medians)
        for contender, factor in (('model', 1), ('dense', 3))
    ]
    about = dict(device='Some CPU', threads=2, dtype='float32')
    (folder / out_file).write_text(json.dumps(dict(environment=about, rows=rows)))


def write_image(folder, name, size=(24, 40)):
    """Write an image where LocalVisBackend does."""
    file = folder / '20260101_000000' / 'vis_data' / 'vis_image' / name
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8))
    return file


def write_statistics(folder, values):
    """Append what CompressionStatsHook recorded, by layer or by group and measure."""
    log = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
    scalars = {f'compression/act_sqnr/{name}': value for name, value in values.items()}
    with log.open('a') as file:
        for step in (20, 40):
            file.write(json.dumps(dict(scalars, step=step)) + '\n')


def make_work_dir(folder, compression=None, name='toy', miou=(30.0, 50.0), **settings):
    """Write a folder with a config, a training of 40 iterations and two validations."""
    config = make_config(compression, **settings)
    entries = [
        train_entry(10, 4.0),
        train_entry(20, 2.0),
        val_entry(20, miou[0]),
        train_entry(30, 1.5),
        train_entry(40, 1.0),
        val_entry(40, miou[1]),
    ]
    write_run(folder, '20260101_000000', entries, config)
    (folder / f'{name}.py').write_text(
        (folder / '20260101_000000' / 'vis_data' / 'config.py').read_text()
    )
    return folder
