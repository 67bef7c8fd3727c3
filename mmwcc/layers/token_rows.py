"""The input of a linear layer as rows."""

from __future__ import annotations

from torch import Tensor

__all__ = ['TokenRows']


class TokenRows:
    """View the input of a linear layer as rows, in training and in integers.

    Attributes:
        in_features: Length of a token.
    """

    in_features: int

    @property
    def _by_energy(self) -> bool:
        """Whether each token has a scale of its own."""
        raise NotImplementedError

    def rows(self, x: Tensor) -> Tensor:
        """View an input as rows (B, k, C), which share a budget of bits if they have one."""
        images = len(x) if self._by_energy and x.dim() > 2 else 1
        return x.reshape(images, -1, self.in_features)

    def _check_input(self, x: Tensor) -> None:
        if x.dim() < 1 or x.shape[-1] != self.in_features:
            raise ValueError(
                f'{type(self).__name__}: x must have in_features={self.in_features} as its last '
                f'dimension, got shape {tuple(x.shape)}. Give the layer the width of its input.'
            )
