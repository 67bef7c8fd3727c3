"""Super-resolution on mmengine, with mmagic's conventions: EDSR, the model around a network, its preprocessor."""
from .data_preprocessor import SRDataPreprocessor
from .edsr import EDSR
from .super_resolver import SuperResolver

__all__ = ['EDSR', 'SRDataPreprocessor', 'SuperResolver']
