"""What can be said of a network without data: which channels depend on which."""
from .connectivity import adjacency, path_counts

__all__ = ['adjacency', 'path_counts']
