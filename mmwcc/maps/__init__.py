"""Maps between layers: how they flow through a network, and their scales."""

from .flow import Map, map_flow
from .operations import (
    AVERAGING,
    FUSED,
    KEEPING,
    NAMED_BY_ARGUMENTS,
    NEW_GRID,
    canonical_name,
    tensors_in,
)
from .plan import MapPlan, plan_maps
from .scales import MAP_SCALES, FollowedMaps, MapScales, add_map_scales, map_obstacle
from .watching import NORM, MapWatcher, combined, watching

__all__ = [
    'AVERAGING',
    'FUSED',
    'KEEPING',
    'MAP_SCALES',
    'NAMED_BY_ARGUMENTS',
    'NEW_GRID',
    'NORM',
    'FollowedMaps',
    'Map',
    'MapPlan',
    'MapScales',
    'MapWatcher',
    'add_map_scales',
    'canonical_name',
    'combined',
    'map_flow',
    'map_obstacle',
    'plan_maps',
    'tensors_in',
    'watching',
]
