"""The base of both WaveletNets: argument checks, stages of units, freezing, the forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .unit import WaveletUnit

__all__ = ['WaveletNetBase']


class WaveletNetBase(BaseModule):
    """Run a stem and stages of :class:`WaveletUnit`, and return their outputs as a tuple.

    The stem is ``conv1``, and the stages are ``layer1``, ``layer2``, .... Subclasses build
    ``conv1``, call :meth:`_add_stage` for each stage, and list the names of their outputs in
    ``layers``.
    """

    def __init__(
        self,
        kappa,
        stages: int,
        out_indices: Sequence[int],
        outputs: int,
        frozen_stages: int,
        norm_cfg: dict | None,
        act_cfg: dict | None,
        norm_eval: bool,
        with_cp: bool,
        pretrained: str | None,
        init_cfg,
    ) -> None:
        name = type(self).__name__
        if pretrained is not None:
            if init_cfg is not None:
                raise ValueError(
                    f'{name}: init_cfg must be None where pretrained is given, got {init_cfg}. Use '
                    'one of them.'
                )
            init_cfg = dict(type='Pretrained', checkpoint=pretrained)
        super().__init__(
            init_cfg
            or [
                dict(type='Kaiming', layer='Conv2d'),
                dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
            ]
        )
        self.kappa = _kappa_of_stages(name, kappa, stages)
        if not out_indices or not set(out_indices) <= set(range(outputs)):
            raise ValueError(
                f'{name}: out_indices must name outputs from 0 to {outputs - 1}, got '
                f'{out_indices}. Use ({outputs - 1},) for the last.'
            )
        if frozen_stages not in range(-1, stages + 1):
            raise ValueError(
                f'{name}: frozen_stages must be from -1 (none) to {stages}, got {frozen_stages}. '
                'Use 0 to freeze the stem alone.'
            )
        self.out_indices, self.frozen_stages, self.norm_eval = (
            tuple(out_indices),
            frozen_stages,
            norm_eval,
        )
        self.norm_cfg, self.act_cfg, self.with_cp = (
            norm_cfg or dict(type='BN'),
            act_cfg or dict(type='ReLU6'),
            with_cp,
        )
        self.layers: list[str] = []

    def _add_stage(
        self,
        in_channels: int,
        out_channels: int,
        units: int,
        stride: int,
        expand_ratio: int,
        dilation: int = 1,
    ) -> None:
        """Add the next stage; its first unit has the stride and the dilation."""
        kappa = self.kappa[len(self.layers)]
        shared: dict[str, Any] = dict(
            expand_ratio=expand_ratio,
            kappa=kappa,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
            with_cp=self.with_cp,
        )
        stage = [WaveletUnit(in_channels, out_channels, stride, dilation=dilation, **shared)]
        stage += [WaveletUnit(out_channels, out_channels, 1, **shared) for _ in range(units - 1)]
        self.layers.append(f'layer{len(self.layers) + 1}')
        self.add_module(self.layers[-1], nn.Sequential(*stage))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs that ``out_indices`` asks for.

        Args:
            x: Images, shape (B, 3, H, W).
        """
        x = self.conv1(x)
        outputs = []
        for index, layer in enumerate(self.layers):
            x = getattr(self, layer)(x)
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)

    def train(self, mode: bool = True):
        """Set the training mode of everything that is not frozen.

        Frozen stages stay in evaluation mode, and so does normalization with ``norm_eval``.
        """
        super().train(mode)
        if self.frozen_stages >= 0:
            for layer in ('conv1', *self.layers[: self.frozen_stages]):
                getattr(self, layer).eval().requires_grad_(False)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def _kappa_of_stages(name: str, kappa, stages: int) -> list[tuple[int, int, int]]:
    """Return (expand, transform, project) of every stage.

    ``kappa`` is one such triple for all stages, or one for each stage.
    """
    triples = [kappa] * stages if all(isinstance(depth, int) for depth in kappa) else list(kappa)
    wrong = len(triples) != stages or any(
        len(triple) != 3 or not all(isinstance(depth, int) and depth >= 0 for depth in triple)
        for triple in triples
    )
    if wrong:
        raise ValueError(
            f'{name}: kappa must be three whole numbers of at least 0 (expanding convolution, '
            f'transform, projecting convolution), or {stages} such triples, got {kappa}. Use (0, '
            '3, 3), as published.'
        )
    return [tuple(triple) for triple in triples]
