"""Super-resolution on mmengine, with mmagic's conventions."""

from .data_preprocessor import SRDataPreprocessor
from .edsr import EDSR
from .super_resolver import SuperResolver

__all__ = ['EDSR', 'SRDataPreprocessor', 'SuperResolver']
