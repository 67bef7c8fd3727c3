"""Synthetic streets with exact labels: a renderer, and the datasets made with it."""

from .scene import Camera, StreetScene, StreetWorld, render, render_street

__all__ = ['Camera', 'StreetScene', 'StreetWorld', 'render', 'render_street']
