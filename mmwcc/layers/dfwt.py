"""The depthwise fast wavelet transform (DFWT), a layer without parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmwcc.functional import dfwt, inverse_dfwt, one_call
from mmwcc.registry import MODELS

__all__ = ['DepthwiseFastWaveletTransform', 'check_kappa', 'deepest_kappa']


def check_kappa(owner: str, name: str, kappa: int) -> None:
    """Raise an error unless ``kappa`` is an integer of at least 0.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is negative.
    """
    if not isinstance(kappa, int) or isinstance(kappa, bool):
        raise TypeError(
            f'{owner}: {name} must be a whole number, got {kappa!r}. Use 3, as published, or 0 for '
            'none.'
        )
    if kappa < 0:
        raise ValueError(f'{owner}: {name} must be at least 0, got {kappa}. Use 0 for none.')


def deepest_kappa(kappa: int, *channels: int) -> int:
    """Return the largest depth d up to ``kappa`` such that ``2**d`` divides all of ``channels``.

    Example:
        >>> deepest_kappa(5, 96, 24)
        3
    """
    while any(count % (1 << kappa) for count in channels):
        kappa -= 1
    return kappa


@MODELS.register_module()
class DepthwiseFastWaveletTransform(nn.Module):
    """Apply a Haar wavelet transform along the channels of a feature map.

    The transform only adds and subtracts, and takes O(channels) operations for each pixel.

    It has ``kappa`` steps. Each step pairs channel j with channel j + n/2 of the n channels left,
    outputs the differences and continues with the sums. The output holds the differences of step 1,
    then those of step 2 and so on, and finally the last sums. It has as many channels as the input,
    in the order in which :class:`WaveletConv2d` divides its input. Followed by such a layer, the
    transform connects every input channel with every output channel.

    Args:
        kappa: Number of steps, at least 0. With 0 the layer is the identity.
        orthonormal: Whether to divide by the square root of 2 in each step, which preserves norms.
            Defaults to False, as published.

    Shape:
        (B, D, H, W) to (B, D, H, W), where ``2**kappa`` divides D and H and W are arbitrary. The
        batch dimension may be left out.

    Raises:
        TypeError: If kappa is not an integer.
        ValueError: If kappa is negative, or if ``2**kappa`` does not divide the channels of a call.

    Example:
        >>> layer = DepthwiseFastWaveletTransform(kappa=2)
        >>> layer(torch.tensor([5., 3., 2., 1.]).reshape(1, 4, 1, 1)).flatten().tolist()
        [3.0, 2.0, 3.0, 11.0]

    Reference:
        Jing, Dangovski and Soljacic, WaveletNet: Logarithmic Scale Efficient Convolutional Neural
        Networks for Edge Devices, 2018.
    """

    def __init__(self, kappa: int, orthonormal: bool = False) -> None:
        super().__init__()
        check_kappa(type(self).__name__, 'kappa', kappa)
        self.kappa, self.orthonormal = kappa, orthonormal

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        """Return the transformed feature map as one tensor."""
        pieces = self.pieces(x if x.dim() == 4 else x.unsqueeze(0))
        y = torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0]
        return y if x.dim() == 4 else y.squeeze(0)

    def pieces(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what ``forward`` concatenates: the differences of each step, then the sums."""
        self._check(x)
        return dfwt(x, self.kappa, self.orthonormal)

    def inverse(self, y: Tensor) -> Tensor:
        """Return the feature map whose transform is ``y``, shape (B, D, H, W) or (D, H, W)."""
        batch = y if y.dim() == 4 else y.unsqueeze(0)
        self._check(batch)
        channels = batch.shape[1]
        sizes = [channels >> step for step in range(1, self.kappa + 1)]
        x = inverse_dfwt(batch.split([*sizes, channels - sum(sizes)], dim=1), self.orthonormal)
        return x if y.dim() == 4 else x.squeeze(0)

    def _check(self, x: Tensor) -> None:
        if x.dim() != 4:
            raise ValueError(
                f'{type(self).__name__}: x must have shape (B, D, H, W) or (D, H, W), got '
                f'{tuple(x.shape)}. Reshape it before this layer.'
            )
        if x.shape[1] % (1 << self.kappa):
            raise ValueError(
                f'{type(self).__name__}: the channels of x must be divisible by 2**kappa='
                f'{1 << self.kappa}, got {x.shape[1]}. Use '
                f'kappa={deepest_kappa(self.kappa, x.shape[1])} at most.'
            )

    def extra_repr(self) -> str:
        return f'kappa={self.kappa}' + (', orthonormal=True' if self.orthonormal else '')
