"""Scenarios of training on two ranks, and the processes that run them.

Usage: ``python rank_scenarios.py FOLDER``.

Each scenario is run by both ranks, one after the other in the same two processes, and returns what
its test compares. Rank r writes all results to ``rank{r}.pth``, and what a scenario raised in their
place.
"""

import copy
import datetime
import sys
import traceback
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

RANKS = 2
QUANTIZERS = dict(
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)
CONFIG = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5, levels=2),
    other=dict(type='mmwcc.QuantConv2d'),
    **QUANTIZERS,
)


class Branches(nn.Module):
    """A trunk, and a branch that data may skip."""

    def __init__(self):
        super().__init__()
        self.stem, self.trunk = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.branch, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x, enter=True):
        x = torch.relu(self.trunk(torch.relu(self.stem(x))))
        return self.head(x + self.branch(x) if enter else x)


ROWS = dict(type='mmwcc.EnergyActQuantizer', bits=2, widths=[0, 3, 4, 5, 6, 8])


def compressed(per_channel=False, rows=False):
    from mmwcc.compression import compress_model

    torch.manual_seed(0)
    model, config = Branches(), copy.deepcopy(CONFIG)
    config['weight_quant']['per_channel'] = per_channel
    if rows:
        config['pointwise'].update(keep_ratio=1.0, act_quant=dict(ROWS))
    compress_model(model, config, verbose=False)
    return model


def images(rank, step=0):
    generator = torch.Generator().manual_seed(10 * step + rank)
    return (1 + rank) * torch.randn(2, 3, 16, 16, generator=generator)


def clips(model):
    return {
        name: value.detach().clone()
        for name, value in model.state_dict().items()
        if 'quant' in name
    }


def evaluation_of_one_rank(rank):
    """Rank 0 alone evaluates a model that has learned nothing; then both train."""
    from mmwcc.quantizers import tolerate_unlearned

    model = compressed()
    tolerate_unlearned(model)
    if rank == 0:
        model.eval()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            model(images(0))
        model.train()
    dist.barrier()
    model(images(rank)).sum().backward()
    return clips(model)


def branch_of_one_rank(rank, per_channel=False):
    """In three steps only rank 0 enters the branch, then none, then only rank 1."""
    model = DistributedDataParallel(compressed(per_channel), find_unused_parameters=True)
    optimizer, history = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9), []
    for step, enter in enumerate((rank == 0, False, rank == 1)):
        optimizer.zero_grad()
        model(images(rank, step), enter).square().mean().backward()
        optimizer.step()
        history.append(clips(model.module))
    return history


def joint_clips(rank):
    """Both ranks learn from what both have seen, in a step of training and by calibration."""
    from mmwcc.post_training import calibrate

    trained, calibrated = compressed(), compressed().eval()
    trained(images(rank))
    calibrate(calibrated, [images(rank), images(rank, 1)])
    return clips(trained), clips(calibrated)


def layers_without_a_model(rank):
    """A layer that no converted model holds warns, until it is told when to settle."""
    from mmwcc.layers import QuantConv2d
    from mmwcc.quantizers import settle_after_forward

    messages = []
    for told in (False, True):
        model = nn.Sequential(QuantConv2d(3, 4, 1, **copy.deepcopy(QUANTIZERS)))
        if told:
            settle_after_forward(model)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            model(images(rank))
        messages.append([str(warning.message) for warning in caught])
    return messages, clips(model)


def branch_of_one_rank_with_clips_of_channels(rank):
    """The same with a clip for each output channel of the weights."""
    return branch_of_one_rank(rank, per_channel=True)


def sharded_with_clips_of_channels(rank):
    """FSDP2 splits clips too."""
    return sharded(rank, per_channel=True)


def sharded_rows_by_energy(rank):
    """Scales and bits by energy, which have a clip for each width."""
    return sharded(rank, rows=True)


def sharded(rank, **changes):
    """FSDP2 trains as DDP does, from the first batch on."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    results = []
    for shard in (False, True):
        model = compressed(**changes)
        if shard:
            mesh = init_device_mesh('cpu', (RANKS,))
            fully_shard(model.branch, mesh=mesh)
            fully_shard(model, mesh=mesh)
            wrapped = model
        else:
            wrapped = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(wrapped.parameters(), 0.05, momentum=0.9)
        for step in range(3):
            optimizer.zero_grad()
            wrapped(images(rank, step)).square().mean().backward()
            optimizer.step()
        results.append(
            {
                name: value.full_tensor() if hasattr(value, 'full_tensor') else value.clone()
                for name, value in model.state_dict().items()
            }
        )
    return results


def compressed_twice(rank):
    """A part is compressed before the whole; only rank 0 enters it in the first step."""
    from mmwcc.compression import compress_model

    torch.manual_seed(0)
    model = Branches()
    model.branch = nn.Sequential(model.branch, nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1))
    for part in (model.branch, model):
        compress_model(part, copy.deepcopy(CONFIG), verbose=False)
    model = DistributedDataParallel(model, find_unused_parameters=True)
    model(images(rank), rank == 0).square().mean().backward()
    return clips(model.module)


def parts_wrapped_one_by_one(rank):
    """Nobody calls the model that was converted, so nothing settles, and a warning says so."""
    model = compressed()
    trunk = DistributedDataParallel(nn.Sequential(model.stem, model.trunk))
    optimizer = torch.optim.SGD(trunk.parameters(), 0.01)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        for step in range(3):
            optimizer.zero_grad()
            trunk(images(rank, step)).square().mean().backward()
            optimizer.step()
    return [str(warning.message) for warning in caught]


SCENARIOS = (
    evaluation_of_one_rank,
    branch_of_one_rank,
    joint_clips,
    layers_without_a_model,
    sharded,
    compressed_twice,
    parts_wrapped_one_by_one,
    branch_of_one_rank_with_clips_of_channels,
    sharded_with_clips_of_channels,
    sharded_rows_by_energy,
)


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store',
        rank=rank,
        world_size=RANKS,
        timeout=datetime.timedelta(seconds=60),
    )
    results = {}
    for scenario in SCENARIOS:
        try:
            results[scenario.__name__] = scenario(rank)
        except Exception:
            results[scenario.__name__] = traceback.format_exc()
        torch.save(results, folder / f'rank{rank}.pth')


if __name__ == '__main__':
    mp.spawn(work, (Path(sys.argv[1]),), nprocs=RANKS)
