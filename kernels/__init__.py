"""Operators of mmwcc, registered as ``torch.ops.mmwcc.*``: joint wavelet shrinkage and fake quantization.

Every operator is a contract (schema, checks, plain-torch reference, fake implementation, gradient) in one file, and
needs torch alone. The layout, tie and dtype rules stand in :mod:`mmwcc.kernels.layout`.
"""
from .fake_quant import fake_quant, fake_quant_backward
from .haar import haar_norms, haar_pack, haar_unpack
from .layout import coarse_rank, fold, is_channels_last, padded_size, unfold
from .select import select, slot_of

__all__ = [
    'coarse_rank', 'fake_quant', 'fake_quant_backward', 'fold', 'haar_norms', 'haar_pack', 'haar_unpack',
    'is_channels_last', 'padded_size', 'select', 'slot_of', 'unfold'
]
