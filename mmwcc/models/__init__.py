"""Registered models."""
from .compressed import CompressedModel

__all__ = ['CompressedModel']
