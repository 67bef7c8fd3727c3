"""Random layers and inputs for tools/fuzz.py: what is varied, and in which ranges."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from mmwcc.functional import SELECTIONS
from mmwcc.layers import WaveletCompressedConv2d
from mmwcc.testing import WAVELETS, Grid, to_numpy

LAYOUTS = {
    'contiguous': lambda x: x.contiguous(),
    'channels_last': lambda x: x.contiguous(memory_format=torch.channels_last),
    'transposed': lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    'every second': lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, ::2, ::2],
}
DATA = {
    'normal': lambda x: x,
    'rectified': torch.relu,
    'integers': lambda x: (2 * x).round(),
    'constant': lambda x: torch.ones_like(x) * x[:, :, :1, :1],
    'one pixel': lambda x: torch.where(
        torch.arange(x[0, 0].numel()).reshape(x.shape[2:]) == 0, x, 0
    ),
    'zeros': torch.zeros_like,
    'large': lambda x: 1e4 * x,
}


@dataclass(frozen=True)
class Quantizers:
    """Both quantizers of a layer."""

    family: str
    weight_bits: int
    act_bits: int
    weight_clip: float
    act_clip: float
    normalize: str | None
    per_channel: bool

    def configs(self) -> dict[str, dict]:
        """Return the layer's quantizer arguments."""
        weight = dict(
            type=f'mmwcc.{self.family}WeightQuantizer',
            bits=self.weight_bits,
            calibration=None,
            initial_clip=self.weight_clip,
            per_channel=self.per_channel,
        )
        if self.family == 'LearnedClip':
            weight['normalize'] = self.normalize
        return dict(
            weight_quant=weight,
            act_quant=dict(
                type=f'mmwcc.{self.family}ActQuantizer',
                bits=self.act_bits,
                signed=True,
                calibration=None,
                initial_clip=self.act_clip,
            ),
        )

    @torch.no_grad()
    def tell_channels_apart(self, layer: WaveletCompressedConv2d) -> None:
        """Give the output channels different clips, as training does."""
        if self.per_channel:
            clips = layer.weight_quant.clip_alpha
            clips.mul_(torch.rand_like(clips) + 0.5)

    def grids(self, layer: WaveletCompressedConv2d, features: int) -> dict[str, Grid]:
        """Return the grids that the reference quantizes with.

        ``features`` is the number of features of one image.
        """
        learned_clip = self.family == 'LearnedClip'
        clips = to_numpy(layer.weight_quant.clip_alpha)

        def clip_scale(bits: int, count: int) -> float:
            # LSQ's gradient scale, rewritten for the clip, so that the gradient of the clip is n
            # times that of the step instead of 1 / n times.
            high = 2 ** (bits - 1) - 1
            return 1.0 if learned_clip else (count * high) ** -0.5 * high**2

        return dict(
            wgt=Grid(
                clips.item() if clips.size == 1 else clips[:, None],
                self.weight_bits,
                symmetric=learned_clip,
                clip_gradient=not learned_clip,
                clip_scale=clip_scale(self.weight_bits, layer.weight.numel() // clips.size),
                normalize=(self.normalize or '') if learned_clip else '',
            ),
            act=Grid(
                layer.act_quant.clip_alpha.item(),
                self.act_bits,
                symmetric=learned_clip,
                clip_scale=clip_scale(self.act_bits, features),
            ),
        )


@dataclass(frozen=True)
class Case:
    """A layer and its input, with all random values derived from ``seed``."""

    batch: int
    in_channels: int
    out_channels: int
    height: int
    width: int
    stride: int
    bias: bool
    keep_ratio: float
    levels: int
    wavelet: str
    selection: str
    layout: str
    data: str
    dtype: torch.dtype
    quantizers: Quantizers | None
    seed: int


_bits = st.sampled_from([2, 3, 4, 6, 8, 16])
_clip = st.floats(0.125, 4, width=32)
CASES = st.builds(
    Case,
    batch=st.integers(1, 3),
    in_channels=st.integers(1, 9),
    out_channels=st.integers(2, 9),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    stride=st.integers(1, 3),
    bias=st.booleans(),
    keep_ratio=st.one_of(st.sampled_from([1, 0.5, 0.25, 0.125]), st.floats(0, 1, exclude_min=True)),
    levels=st.integers(1, 4),
    wavelet=st.sampled_from(WAVELETS),
    selection=st.sampled_from(SELECTIONS),
    layout=st.sampled_from(sorted(LAYOUTS)),
    data=st.sampled_from(sorted(DATA)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    quantizers=st.none()
    | st.builds(
        Quantizers,
        family=st.sampled_from(['LearnedClip', 'LSQ']),
        weight_bits=_bits,
        act_bits=_bits,
        weight_clip=_clip,
        act_clip=_clip,
        normalize=st.sampled_from([None, 'standard', 'rescale']),
        per_channel=st.booleans(),
    ),
    seed=st.integers(0, 2**32 - 1),
)
