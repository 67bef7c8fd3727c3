"""Runs that check their checkpoints, and checkpoints that have been changed."""

import torch
from toy_training import COMPRESSION, toy_runner

UNQUANTIZED = {**COMPRESSION, 'weight_quant': None, 'act_quant': None}
SCHEDULE = dict(
    type='mmwcc.CompressionScheduleHook',
    act_bits=dict(type='step', steps=[(0, 32), (1, 8), (2, 4)]),
)


def changed(**pointwise):
    return {**COMPRESSION, 'pointwise': {**COMPRESSION['pointwise'], **pointwise}}


def make(folder, compression=COMPRESSION, check=None, schedule=None, **kwargs):
    hooks = dict(
        compression_schedule=schedule,
        random_state=None,
        compression_check=dict(type='mmwcc.CompressionCheckHook', **(check or {})),
    )
    return toy_runner(
        folder, compression=compression, hooks={**hooks, **kwargs.pop('hooks', {})}, **kwargs
    )


def stock(folder, compression=COMPRESSION, **kwargs):
    """Build a runner whose config names none of the hooks of mmwcc."""
    none = dict.fromkeys(('compression_schedule', 'compression_check', 'random_state'))
    return toy_runner(folder, compression=compression, hooks=none, **kwargs)


def edited(tmp_path, path, edit):
    checkpoint = torch.load(path, weights_only=False)
    checkpoint = edit(checkpoint) or checkpoint
    torch.save(checkpoint, tmp_path / 'edited.pth')
    return str(tmp_path / 'edited.pth')


def without_stamp(checkpoint):
    """Make a checkpoint one that records nothing, neither in its meta nor in its weights."""
    del checkpoint['meta']['mmwcc']
    checkpoint['state_dict'] = dict(checkpoint['state_dict'])


def without_meta(checkpoint):
    del checkpoint['meta']['mmwcc']
