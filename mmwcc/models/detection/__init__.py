"""Detection for mmdetection: EfficientDet's neck and head, its sizes, and its published weights."""
from mmwcc.registry import MODELS

from .bifpn import BiFPN
from .effdet_weights import from_effdet
from .scaling import SCALING, compound_scaling

__all__ = ['SCALING', 'BiFPN', 'EfficientDetHead', 'compound_scaling', 'from_effdet']


@MODELS.register_module()
def EfficientDetHead(**config):
    """Build the head in ``efficientdet_head.py``: mmdetection takes seconds to import, and is imported only then."""
    from .efficientdet_head import EfficientDetHead as head
    return head(**config)
