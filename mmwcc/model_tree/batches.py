"""Batches that are given to a function: check them, and describe them in messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from mmwcc.messages import some_of

__all__ = ['described', 'each_batch']


def each_batch(caller: str, batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches.

    Args:
        caller: Name of the function that raises the errors.
        batches: What it was given.

    Raises:
        TypeError: If it is a single batch, or no iterable at all.
        ValueError: If there was no batch.
    """
    if isinstance(batches, (Mapping, Tensor, str)) or not isinstance(batches, Iterable):
        raise TypeError(
            f'{caller}: batches must be a list or a data loader, got {described(batches)}. Put a '
            'single batch into a list.'
        )
    empty = True
    for batch in batches:
        empty = False
        yield batch
    if empty:
        raise ValueError(
            f'{caller}: batches must hold at least one batch, got none. Give a data loader that is '
            'not used up.'
        )


def described(value: Any) -> str:
    """Describe a batch: the kinds of its parts, and the shapes of its tensors.

    Example:
        >>> described([torch.zeros(8, 3, 32, 32), torch.zeros(8, dtype=torch.long)])
        'list of (float32 tensor (8, 3, 32, 32), int64 tensor (8,))'
    """
    if isinstance(value, Tensor):
        return f'{str(value.dtype).removeprefix("torch.")} tensor {tuple(value.shape)}'
    if isinstance(value, Mapping):
        parts = some_of(f'{key}: {described(part)}' for key, part in value.items())
        return f'{type(value).__name__} of ({parts})'
    if isinstance(value, (list, tuple)):
        return f'{type(value).__name__} of ({some_of(map(described, value), most=3)})'
    return type(value).__name__
