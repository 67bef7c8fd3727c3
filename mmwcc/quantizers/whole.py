"""The model that a quantizer is a part of, whose mode tells whether there is training at all."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from torch import nn

__all__ = ['Whole']


class Whole:
    """Refer to a model from one of its parts, without keeping it alive and without owning it.

    A copy of the model refers to that copy. A copy of the part alone refers to nothing, and so does
    one that comes from a file.

    Args:
        model: The model. Defaults to None: none is known.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self._get: Callable[[], nn.Module | None] = (
            (lambda: None) if model is None else weakref.ref(model)
        )

    @property
    def training(self) -> bool | None:
        """Whether the model trains, or None if it is not known."""
        model = self._get()
        return None if model is None else model.training

    def __deepcopy__(self, memo: dict) -> Whole:
        return Whole(memo.get(id(self._get())))

    def __reduce__(self) -> tuple:
        return Whole, ()
