"""Buffers that keep their dtype when a model is converted to another."""

from __future__ import annotations

from torch import nn

__all__ = ['ExactBuffers']


class ExactBuffers(nn.Module):
    """A module whose buffers ``.half()`` and the like move but do not round.

    A rounded step would change the levels.
    """

    def _apply(self, fn, recurse: bool = True):
        exact = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            moved = self._buffers[name]
            if buffer is not None and moved is not None and moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self
