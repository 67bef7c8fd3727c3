"""WaveletNet backbones."""

from .waveletnet import WaveletNet
from .waveletnet_cifar import WaveletNetCifar

__all__ = ['WaveletNet', 'WaveletNetCifar']
