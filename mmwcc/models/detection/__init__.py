"""Parts of EfficientDet for mmdetection: neck, head, sizes and published weights."""

from mmwcc.registry import MODELS

from .bifpn import BiFPN
from .effdet_weights import from_effdet
from .scaling import SCALING, compound_scaling

__all__ = ['SCALING', 'BiFPN', 'compound_scaling', 'from_effdet']


@MODELS.register_module(name='EfficientDetHead')
def build_efficientdet_head(**config):
    """Build an ``EfficientDetHead``.

    mmdetection takes seconds to import, so the module with the class is imported only here.
    """
    from .efficientdet_head import EfficientDetHead

    return EfficientDetHead(**config)
