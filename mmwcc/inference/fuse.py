"""In-place fusion of inverted residual blocks with compressed 1x1 convolutions, for inference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d, is_eligible
from mmwcc.model_tree import aligned, announce, has_hooks, is_plain, obstacle, replace_layers

from .inverted_residual import FoldedConv, FusedInvertedResidual

__all__ = ['BlockReport', 'FusionReport', 'fuse_inverted_residuals']

# Exactly these classes. A subclass may compute something else.
_FOLDABLE = (QuantConv2d, WaveletCompressedConv2d)


class _NotFusible(Exception):
    """A block cannot be fused; the message says why."""


@dataclass(frozen=True)
class BlockReport:
    """One inverted residual block.

    Attributes:
        name: Qualified name in the model.
        kind: Class of the block before fusion.
        fused: Whether it was replaced.
        depthwise: Whether its depthwise convolution and the transform after it are now one
            operator.
        reason: Why it was not replaced, or why its depthwise convolution runs on its own, or empty.
    """

    name: str
    kind: str
    fused: bool
    depthwise: bool = False
    reason: str = ''

    @property
    def extent(self) -> str:
        """What is now one operator: 'all', only the '1x1' convolutions, or 'no' part."""
        if not self.fused:
            return 'no'
        return 'all' if self.depthwise else '1x1'


class FusionReport(list):
    """One :class:`BlockReport` for each inverted residual block; prints as a table."""

    def summary(self) -> str:
        """Count the blocks in one line."""
        fused = [block for block in self if block.fused]
        return (
            f'{len(self)} inverted residual blocks: {len(fused)} fused, '
            f'{sum(block.depthwise for block in fused)} of them with the depthwise convolution'
        )

    def to_dicts(self) -> list[dict]:
        """Return plain data, one dict per block."""
        return [asdict(block) for block in self]

    def __str__(self) -> str:
        cells = [('block', 'from', 'fused', 'note')]
        cells += [(block.name, block.kind, block.extent, block.reason) for block in self]
        return '\n'.join([*aligned(cells), self.summary()])


def _parts(module: Any) -> Iterator[nn.Module]:
    """Yield the layers that ``module`` applies in turn."""
    if type(module) is nn.Sequential or (
        isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    ):
        for child in module:
            yield from _parts(child)
    elif type(module).__name__ == 'ConvModule' and hasattr(module, 'order'):
        if module.with_spectral_norm or module.with_explicit_padding:
            raise _NotFusible('spectral normalization or padding of its own')
        layers = dict(
            conv=module.conv,
            norm=module.norm if module.with_norm else None,
            act=module.activate if module.with_activation else None,
        )
        yield from (layers[step] for step in module.order if layers[step] is not None)
    elif not isinstance(module, (nn.Identity, nn.Dropout, nn.Dropout2d)):  # no effect in eval mode
        yield module


def _stages(module: nn.Module) -> list[tuple[nn.Conv2d, _BatchNorm | None, nn.Module | None]]:
    """Group the layers of a chain into convolution, normalization and activation."""
    stages: list[list] = []
    for part in _parts(module):
        if isinstance(part, nn.Conv2d):
            if not (type(part) in _FOLDABLE or is_plain(part)):
                raise _NotFusible(f'{type(part).__name__} has a forward of its own')
            if obstacle(part):
                raise _NotFusible(f'{type(part).__name__}: {obstacle(part)}')
            stages.append([part, None, None])
        elif not stages:
            raise _NotFusible(f'begins with {type(part).__name__}')
        elif isinstance(part, _BatchNorm) and stages[-1][1:] == [None, None]:
            if part.running_var is None:
                raise _NotFusible('normalization without running statistics')
            stages[-1][1] = part
        elif stages[-1][2] is None and not any(part.state_dict()):
            stages[-1][2] = part
        else:
            raise _NotFusible(f'{type(part).__name__} cannot be folded')
    return [tuple(stage) for stage in stages]


def _is_pointwise(conv: nn.Conv2d) -> bool:
    return is_eligible(conv.kernel_size, conv.padding, conv.groups) and conv.stride == (1, 1)


def _is_depthwise(conv: nn.Conv2d) -> bool:
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.groups > 1
        and (conv.padding_mode == 'zeros' or not any(conv._reversed_padding_repeated_twice))
    )


def _looks_like_a_block(stages: list) -> bool:
    kinds = [_is_pointwise(conv) for conv, _, _ in stages]
    return kinds in ([False, True], [True, False, True]) and _is_depthwise(stages[-2][0])


def _fused(chain: nn.Module, residual: bool) -> FusedInvertedResidual:
    """Build the fused block for a chain of layers.

    Raises:
        _NotFusible: If the chain cannot be fused.
    """
    if any(part.training for part in chain.modules()):
        raise _NotFusible('in training mode: call model.eval() first')
    stages = _stages(chain)
    if not _looks_like_a_block(stages):
        raise _NotFusible('not 1x1, depthwise, 1x1 with batch normalization')
    if residual and stages[-1][2] is not None:
        raise _NotFusible('an activation between the last convolution and the residual')
    pointwise = [conv for conv, _, _ in stages if _is_pointwise(conv)]
    if not any(isinstance(conv, WaveletCompressedConv2d) for conv in pointwise):
        raise _NotFusible('no wavelet compressed convolution')
    for conv in pointwise:
        if getattr(conv, 'wavelet', 'haar') != 'haar':
            raise _NotFusible(f'wavelet {conv.wavelet!r}; only haar has fused operators')
    *expand, depthwise, project = (FoldedConv(*stage) for stage in stages)
    return FusedInvertedResidual(expand[0] if expand else None, depthwise, project, residual).eval()


def _why_apart(block: FusedInvertedResidual) -> str:
    if block.fuses_depthwise:
        return ''
    if not block.project.compressed:
        return 'the last convolution is dense'
    if block.depthwise.bounds is None:
        return f'{type(block.depthwise.activation).__name__} is no clamp'
    return 'selection by position' if block.project.selection != 'energy' else 'stride or padding'


def _chain(block: Any) -> tuple[nn.Module, bool] | None:
    """Return the layers that a block applies in turn, and whether it adds its input.

    Returns None if the block is not an inverted residual block.

    Raises:
        _NotFusible: If it is an inverted residual block of another form.
    """
    # Classes of this name in mmseg, mmpretrain and torchvision compute x + conv(x) or conv(x).
    named = 'InvertedResidual' in type(block).__name__
    if (
        named
        and isinstance(getattr(block, 'conv', None), nn.Sequential)
        and hasattr(block, 'use_res_connect')
    ):
        return block.conv, bool(block.use_res_connect)
    # Those in mmdet, and those of MobileNetV3 in mmseg and mmpretrain, have three named
    # convolutions.
    if named and hasattr(block, 'depthwise_conv') and hasattr(block, 'linear_conv'):
        if getattr(block, 'with_se', False):
            raise _NotFusible('squeeze and excitation between the convolutions')
        expand = [block.expand_conv] if getattr(block, 'with_expand_conv', False) else []
        chain = nn.Sequential(*expand, block.depthwise_conv, block.linear_conv)
        chain.training = block.training  # not chain.train(), which would change the layers too
        return chain, bool(block.with_res_shortcut)
    if isinstance(block, nn.Sequential):
        try:
            return (block, False) if _looks_like_a_block(_stages(block)) else None
        except _NotFusible:
            return None
    return None


def _try(name: str, block: nn.Module) -> tuple[nn.Module, BlockReport] | None:
    """Return the block that replaces this one (itself if it stays), and its entry in the report.

    Returns None if the block is not an inverted residual block.
    """
    try:
        chain = _chain(block)
        if chain is None:
            return None
        hooked = [
            part
            for part, module in block.named_modules()
            if module is not block and has_hooks(module)
        ]
        if hooked:
            raise _NotFusible(f'hooks on {hooked[0]}, which would not run')
        fused = _fused(*chain)
    except _NotFusible as reason:
        return block, BlockReport(name, type(block).__name__, False, reason=str(reason))
    return fused, BlockReport(
        name, type(block).__name__, True, fused.fuses_depthwise, _why_apart(fused)
    )


def fuse_inverted_residuals(model: nn.Module, *, verbose: bool = True) -> FusionReport:
    """Replace inverted residual blocks by :class:`mmwcc.inference.FusedInvertedResidual`, in place.

    The function recognizes the blocks of mmseg, mmdet, mmpretrain and torchvision by their class.
    In any model, it also recognizes an ``nn.Sequential`` that applies an optional 1x1, a depthwise
    and a 1x1 convolution, with batch normalization and activations in between. At least one 1x1
    convolution must be wavelet compressed. A block stays as it is if it has squeeze and excitation,
    another wavelet, integer or other layers, or hooks on the layers inside. The report says why.
    Hooks on the block itself are carried over.

    Fusion is for inference. It folds the weights, so load the checkpoint first. Afterwards the
    model cannot be trained, and it can neither load nor save a checkpoint of the unfused form.

    Args:
        model: Any module in evaluation mode.
        verbose: Whether to print the report. Defaults to True.

    Returns:
        The report: one line per block, and a summary.

    Raises:
        RuntimeError: If the model is in training mode.
    """
    if model.training:
        raise RuntimeError(
            'fuse_inverted_residuals: the model must be in evaluation mode, got one in training '
            'mode. Call model.eval() and load its checkpoint before.'
        )
    report, seen = FusionReport(), list[str]()
    made: dict[nn.Module, tuple[nn.Module, BlockReport] | None] = {}
    for name, block in list(model.named_modules(remove_duplicate=False)):
        if any(name.startswith(f'{outer}.') for outer in seen) or not name:
            continue
        if block not in made:
            made[block] = _try(name, block)
        found = made[block]
        if found is not None:
            seen.append(name)
            report.append(replace(found[1], name=name))
    replace_layers(model, {block: found[0] for block, found in made.items() if found is not None})
    if verbose:
        announce(f'Fused {type(model).__name__}:\n{report}')
    return report
