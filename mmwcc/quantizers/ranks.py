"""Agreement of several ranks on a clip that each has learned from its own values.

Which values reach a quantizer may depend on the data of a rank. So nothing here is called from the
forward pass of a quantizer: a collective there would wait for ranks that never come.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import nn

from .calibration import Clips, Magnitudes, nothing, widened

if TYPE_CHECKING:
    from .base import UniformQuantizer

__all__ = ['agree', 'several_ranks', 'warn_alone']


def several_ranks() -> bool:
    """Tell whether this process belongs to a group of ranks.

    A group of one counts too: sharding needs a group.
    """
    return dist.is_available() and dist.is_initialized()


@torch.no_grad()
def agree(quantizers: Sequence[UniformQuantizer]) -> None:
    """Settle the clips of the quantizers for which any rank has learned something.

    Args:
        quantizers: The same ones on every rank, in the same order. Every rank must call this.
    """
    _agree_on_clips([quantizer for quantizer in quantizers if quantizer.scales.axes])
    _agree_on_values([quantizer for quantizer in quantizers if not quantizer.scales.axes])


def _agree_on_clips(quantizers: Sequence[UniformQuantizer]) -> None:
    """Settle quantizers with several clips, of weights, which are the same on all ranks."""
    if not quantizers:
        return
    sizes = [quantizer.clip_alpha.numel() for quantizer in quantizers]
    clips = torch.cat(
        [
            quantizer._learned.clips.float()
            if isinstance(quantizer._learned, Clips)
            else torch.zeros(size, device=quantizer.clip_alpha.device)
            for quantizer, size in zip(quantizers, sizes, strict=True)
        ]
    )
    if several_ranks():
        dist.all_reduce(clips, op=dist.ReduceOp.MAX)
    for quantizer, part in zip(quantizers, clips.split(sizes), strict=True):
        if part.any():
            quantizer._settle(Clips(part))


def _agree_on_values(quantizers: Sequence[UniformQuantizer]) -> None:
    """Settle quantizers with one clip from the histogram of the values of all ranks."""
    if not quantizers:
        return
    own = [
        quantizer._learned
        if isinstance(quantizer._learned, Magnitudes)
        else nothing(quantizer.clip_alpha.device)
        for quantizer in quantizers
    ]
    if not several_ranks():
        joint = own
    else:
        extremes = torch.stack(
            [torch.stack([part.largest, part.negative.double()]) for part in own]
        )
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
        joint = [
            part._replace(largest=largest, negative=negative.bool())
            for part, (largest, negative) in zip(own, extremes, strict=True)
        ]
    learned = [index for index, part in enumerate(joint) if part.largest > 0]
    if several_ranks() and learned:
        # The bins of all ranks must have the same bounds before they are added up.
        counts = torch.stack([widened(own[n], joint[n].exponent).counts for n in learned])
        dist.all_reduce(counts)
        for index, count in zip(learned, counts, strict=True):
            joint[index] = joint[index]._replace(counts=count)
    for index in learned:
        quantizers[index]._settle(joint[index])


def warn_alone(quantizer: nn.Module) -> None:
    """Warn that nothing will settle what a quantizer learns on this rank."""
    warnings.warn(
        f'{quantizer.title}: its clip was learned on this rank alone, and other ranks may '
        'have learned another one. Call mmwcc.quantizers.settle_after_forward(model) on every rank '
        'before training, for the module whose forward pass every rank runs in every step.',
        stacklevel=2,
    )
