"""Publish weights as safetensors with a JSON description. Neither file can run code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmwcc.requirements import require
from mmwcc.version import __version__

__all__ = ['DROPPED', 'publish']

DROPPED = ('optimizer', 'param_schedulers', 'message_hub', 'ema_state_dict')
"""What checkpoints hold for resuming a training, and published weights do not."""


def publish(
    checkpoint: Mapping[str, Any], out: str | Path, *, ema: bool = True
) -> tuple[Path, Path]:
    """Write the weights of a checkpoint as safetensors, and its meta as JSON in a file next to it.

    Once mmwcc is imported, ``load_checkpoint`` of mmengine reads both files, given the name of the
    first (see :mod:`mmwcc.compat`). So do ``init_model`` and ``init_detector``, which use it.

    Args:
        checkpoint: A loaded checkpoint that mmengine wrote.
        out: File to write, ending in .safetensors. The meta is written to a file with the same
            name, ending in .json.
        ema: Whether to use the averaged weights, if an EMAHook saved them. If False, the trained
            weights are used. Defaults to True.

    Returns:
        The two files.

    Raises:
        ModuleNotFoundError: If safetensors is missing.
        ValueError: If out has another ending, the checkpoint holds no weights, or ema is False
            without averages.
        TypeError: If a weight is not a tensor.
    """
    out = Path(out)
    if out.suffix != '.safetensors':
        raise ValueError(
            f'publish: out must end in .safetensors, got {out}. Its name says how to load it.'
        )
    require('safetensors', 'publish')
    from safetensors.torch import save

    weights = _weights(checkpoint, ema)
    meta = _plain(
        {key: value for key, value in checkpoint.get('meta', {}).items() if key != 'hook_msgs'}
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    # The function of safetensors that writes files lets only their owner read them.
    data = save(weights, metadata=dict(format='pt'))
    out.write_bytes(data)
    content = dict(
        format='mmwcc',
        version=__version__,
        sha256=hashlib.sha256(data).hexdigest(),
        tensors=len(weights),
        parameters=sum(tensor.numel() for tensor in weights.values()),
        metrics=_metrics(checkpoint),
        meta=meta,
    )
    out.with_suffix('.json').write_text(json.dumps(content, indent=1) + '\n')
    return out, out.with_suffix('.json')


def _weights(checkpoint: Mapping[str, Any], ema: bool) -> dict[str, Tensor]:
    weights = checkpoint.get('state_dict') or {}
    if not ema:
        # EMAHook saves the averages as state_dict, and the trained weights under its own key.
        if 'ema_state_dict' not in checkpoint:
            raise ValueError(
                'publish: ema must be True for a checkpoint without averaged weights. Leave it out.'
            )
        trained = {
            key.removeprefix('module.'): value
            for key, value in checkpoint['ema_state_dict'].items()
            if key != 'steps'
        }
        weights = {**weights, **trained}
    if not weights:
        raise ValueError(
            'publish: the checkpoint must hold a state_dict, got none. Give a checkpoint that '
            'mmengine wrote.'
        )
    wrong = [key for key, value in weights.items() if not isinstance(value, Tensor)]
    if wrong:
        raise TypeError(
            f'publish: every weight must be a tensor, got {type(weights[wrong[0]]).__name__} for '
            f'{wrong[0]}. Remove it from the state_dict.'
        )
    # safetensors refuses tensors that share memory, as in shared layers.
    return {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in weights.items()
    }


def _metrics(checkpoint: Mapping[str, Any]) -> dict[str, float]:
    """Return the last value of every validation or test metric that the run recorded."""
    scalars = (checkpoint.get('message_hub') or {}).get('log_scalars', {})
    return {
        name: float(history.current())
        for name, history in scalars.items()
        if name.partition('/')[0] in ('val', 'test') and not name.endswith(('/time', '/data_time'))
    }


def _plain(value: Any) -> Any:
    """Convert data to JSON types; anything else becomes text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic, Tensor)):
        return value.tolist()
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
