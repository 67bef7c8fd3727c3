"""The layers that predict: known by class in OpenMMLab's heads, and by name in other heads."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from mmwcc.layers import SeparableConv2d, WaveletConv2d

__all__ = ['named_like_a_predictor', 'prediction_layers']

# Names that the heads of mmsegmentation 1.2.2, mmdetection 3.3.0 and mmwcc give to prediction
# layers. A prediction layer is one that no other learned layer follows before an output. A pattern
# must match a whole name within the head: that of a layer, or of a module whose last layer
# predicts. The patterns of a class add to those of its base classes. If an output is a product, for
# example of kernels and features, the layers that yield both factors predict. Features that only
# other layers read are not an output. A test runs every head and compares. GridHead, MaskPointHead
# and PointHead predict with layers of other kinds, which are never replaced.
_PREDICTORS = {
    # mmsegmentation
    'BaseDecodeHead': r'(\w+_)?(conv|cls)_seg',
    'EncHead': r'se_layer',
    'KernelUpdateHead': r'fc_mask|feat_transform',
    'SegmenterMaskTransformerHead': r'patch_proj|classes_proj',
    'SideAdapterCLIPHead': (
        r'side_adapter_network\.mask_decoder\.(query|pix)_mlp|'
        r'rec_with_attnbias\.proj'
    ),
    'VPDDepthHead': r'depth_pred_layer',
    # mmdetection: dense heads
    'AnchorHead': r'conv_(cls|reg)',
    'AnchorFreeHead': r'conv_(cls|reg)',
    'ATSSHead': r'atss_(cls|reg|centerness)',
    # The visual features in its product also feed bbox_pred, so they remain features.
    'ATSSVLFusionHead': r'head\.(bbox_pred|centerness|dot_product_projection_text)',
    'CLRHead': r'(cls|reg)_layers|seg_decoder\.conv',  # in onedl-mmdetection
    'CenterNetHead': r'(heatmap|wh|offset)_head',
    'CentripetalHead': r'(tl|br)_(guiding|centripetal)_shift\.\d+',
    'CondInstBboxHead': r'controller',
    'CondInstMaskHead': r'mask_feature_head',
    'CornerHead': r'(tl|br)_(heat|off|emb)\.\d+',
    'DDODHead': r'atss_(cls|reg|iou)',
    'DDQDETRHead': r'aux_(cls|reg)_branches\.\d+',
    'DETRHead': r'fc_(cls|reg)',
    'DeformableDETRHead': r'(cls|reg)_branches\.\d+',
    'FCOSHead': r'conv_centerness',
    'GARetinaHead': r'retina_(cls|reg)',
    'GFLHead': r'gfl_(cls|reg)',
    'GuidedAnchorHead': r'conv_(loc|shape)',
    'MaskFormerHead': r'cls_embed|mask_embed|pixel_decoder\.mask_feature',
    'RPNHead': r'rpn_(cls|reg)',
    'RTMDetHead': r'rtm_(cls|reg|obj)(\.\d+)?',
    'RTMDetInsHead': r'rtm_kernel(\.\d+)?|mask_head\.projection',
    'RepPointsHead': r'reppoints_(cls|pts_init|pts_refine)_out',
    'RetinaHead': r'retina_(cls|reg)',
    'RetinaSepBNHead': r'retina_(cls|reg)',
    'SABLRetinaHead': r'retina_(cls|bbox_cls|bbox_reg)',
    'SOLOHead': r'conv_cls|conv_mask_list(_[xy])?\.\d+',
    'SOLOV2Head': r'conv_kernel|mask_feature_head',
    'SSDHead': r'(cls|reg)_convs\.\d+',
    'TOODHead': r'tood_(cls|reg)|cls_prob_module|reg_offset_module',
    'VFNetHead': r'vfnet_(cls|reg|reg_refine)',
    'YOLACTHead': r'conv_coeff',
    'YOLACTProtonet': r'protonet|segm_branch',
    'YOLOFHead': r'cls_score|bbox_pred|object_pred',
    'YOLOV3Head': r'convs_pred\.\d+',
    'YOLOXHead': r'multi_level_conv_(cls|reg|obj)\.\d+',
    # mmdetection: heads of regions, of panoptic segmentation and of tracking
    'BBoxHead': r'fc_(cls|reg)',
    'CoarseMaskHead': r'fc_logits',
    'FCNMaskHead': r'conv_logits',
    'FusedSemanticHead': r'conv_logits',
    'GlobalContextHead': r'fc',
    'LinearReIDHead': r'fc_out|classifier',
    'MaskIoUHead': r'fc_mask_iou',
    'MultiInstanceBBoxHead': r'fc_(cls|reg)(_ref)?\.\d+',
    'PanopticFPNHead': r'conv_logits',
    'QuasiDenseEmbedHead': r'fc_embed',
    'RoIEmbedHead': r'fcs',
    'SABLHead': r'fc_reg_(cls|offset)',
    # mmwcc
    'DepthDecoder': r'dispconvs\.\d+',
    'EfficientDetHead': r'(cls|reg)_predictor',
    'LinearClsHead': r'fc',
    'PoseNetwork': r'layers',
}

_LIBRARIES = ('mmseg', 'mmdet', 'mmwcc')

# Names that other heads usually give to prediction layers.
_BY_CUSTOM = re.compile(
    r'(.*_)?(conv_seg|cls_seg|conv_cls|conv_reg|conv_centerness|conv_obj|conv_pred|cls|reg|bbox|'
    r'centerness|objectness|cls_out|reg_out|logits|predictor)'
)

# SeparableConv2d and WaveletConv2d each stand for one convolution.
_LAYERS = (nn.Conv2d, nn.Linear, SeparableConv2d, WaveletConv2d)


def named_like_a_predictor(name: str) -> bool:
    """Tell whether a qualified name is usual for a prediction layer of a head."""
    return 'head' in name and any(_BY_CUSTOM.fullmatch(part) for part in name.split('.')[-2:])


def prediction_layers(model: nn.Module) -> set[str]:
    """Find the convolutions and linear layers that predict, in all heads of a model.

    Heads of mmsegmentation, mmdetection and mmwcc are recognized by their classes. In other heads,
    a layer counts if it has a name that is usual for prediction layers, or if a known base class
    of the head names it.

    Args:
        model: Any module. It is not run.

    Returns:
        Qualified names, shared layers under all their names. A layer that consists of several
        convolutions but stands for one appears under its own name only.

    Example:
        >>> head = nn.ModuleDict(dict(conv=nn.Conv2d(1, 1, 1), conv_cls=nn.Conv2d(1, 1, 1)))
        >>> prediction_layers(nn.ModuleDict(dict(head=head)))
        {'head.conv_cls'}
    """
    layers = dict(_layers('', model))
    found: set[nn.Module] = set()
    settled: list[str] = []
    for name, head in model.named_modules(remove_duplicate=False):
        lineage = [kind for kind in type(head).__mro__ if _is_known(kind)]
        if lineage:
            pattern = re.compile('|'.join(_PREDICTORS[kind.__name__] for kind in lineage))
            found.update(_last_layers(head, pattern))
        if _is_known(type(head)):
            settled.append(f'{name}.' if name else '')
    found.update(
        layer
        for name, layer in layers.items()
        if named_like_a_predictor(name) and not name.startswith(tuple(settled))
    )
    return {name for name, layer in layers.items() if layer in found}


def _is_known(kind: type) -> bool:
    """Tell whether a class is in the table, and is not one of the same name in another library."""
    return kind.__name__ in _PREDICTORS and kind.__module__.partition('.')[0] in _LIBRARIES


def _layers(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers in a module in order of definition, shared ones at each occurrence."""
    if isinstance(module, _LAYERS):
        yield name, module
        return
    for key, child in module._modules.items():
        if child is not None:
            yield from _layers(f'{name}.{key}' if name else key, child)


def _last_layers(head: nn.Module, pattern: re.Pattern) -> Iterator[nn.Module]:
    """Yield the last layer of each part of a head that the pattern matches, if it has layers."""
    for name, part in head.named_modules(remove_duplicate=False):
        if pattern.fullmatch(name):
            yield from [layer for _, layer in _layers(name, part)][-1:]
