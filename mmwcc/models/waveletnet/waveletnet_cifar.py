"""WaveletNet for images of 32x32 pixels."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import ConvModule

from mmwcc.registry import MODELS

from .base import WaveletNetBase

__all__ = ['WaveletNetCifar']


@MODELS.register_module()
class WaveletNetCifar(WaveletNetBase):
    """Build a residual network of :class:`WaveletUnit` for CIFAR.

    A 3x3 convolution is followed by three stages of ``depth`` units. With its classifier the
    network has ``9 * depth + 2`` layers.

    Args:
        depth: Units in each stage, M in the paper. Defaults to 24, as published.
        widths: Channels of the stages; the stem has as many as the first stage. Defaults to (16,
            32, 64).
        kappa: Depths (expanding WConv, transform, projecting WConv), or one triple for each stage.
            If the channels of a layer do not allow a depth, it gets the deepest possible one.
            Defaults to (0, 3, 3), as published; (0, 0, 3) is the network without transforms.
        strides: Stride of the first unit of each stage. Defaults to (1, 2, 2).
        expand_ratio: Expansion in all units. Defaults to 6.
        out_indices: Stages to return, from 0 to 2. Defaults to (2,), for classification.
        frozen_stages: Stages that do not train: -1 none, 0 the stem, n the stem and n stages.
            Defaults to -1.
        norm_cfg: Config of the normalization. Defaults to batch normalization.
        act_cfg: Config of the activation. Defaults to ReLU6.
        norm_eval: Whether batch normalization keeps its statistics fixed in training. Defaults to
            False.
        with_cp: Whether units recompute activations in the backward pass instead of storing them.
            Defaults to False.
        pretrained: Checkpoint to start from. Defaults to None.
        init_cfg: Config of the initialization. Defaults to He's for convolutions and 1 for
            normalization.

    Shape:
        (B, 3, H, W) to a tuple; at the default strides the stages have strides 1, 2 and 4.

    Raises:
        ValueError: If depth is below 1; widths and strides do not have three entries; kappa,
            out_indices or frozen_stages do not fit; pretrained and init_cfg are both given.

    Example:
        >>> WaveletNetCifar(depth=1)(torch.rand(1, 3, 32, 32))[0].shape
        torch.Size([1, 64, 8, 8])
    """

    def __init__(
        self,
        depth: int = 24,
        widths: Sequence[int] = (16, 32, 64),
        kappa=(0, 3, 3),
        strides: Sequence[int] = (1, 2, 2),
        expand_ratio: int = 6,
        out_indices: Sequence[int] = (2,),
        frozen_stages: int = -1,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        pretrained: str | None = None,
        init_cfg=None,
    ) -> None:
        if not isinstance(depth, int) or depth < 1:
            raise ValueError(
                f'WaveletNetCifar: depth must be a whole number of at least 1, got {depth}. Use '
                '24, as published.'
            )
        for name, values in (('widths', widths), ('strides', strides)):
            if len(values) != 3:
                raise ValueError(
                    f'WaveletNetCifar: {name} must have one entry for each of the 3 stages, got '
                    f'{values}. Use {(16, 32, 64) if name == "widths" else (1, 2, 2)}.'
                )
        super().__init__(
            kappa,
            3,
            out_indices,
            3,
            frozen_stages,
            norm_cfg,
            act_cfg,
            norm_eval,
            with_cp,
            pretrained,
            init_cfg,
        )
        self.conv1 = ConvModule(
            3, widths[0], 3, padding=1, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg
        )
        for in_channels, out_channels, stride in zip(
            (widths[0], *widths[:2]), widths, strides, strict=True
        ):
            self._add_stage(in_channels, out_channels, depth, stride, expand_ratio)
