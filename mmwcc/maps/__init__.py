"""Maps between layers: how they flow through a network, and their scales."""

from .flow import Map, map_flow
from .operations import FUSED, KEEPING, NEW_GRID, canonical_name, tensors_in
from .plan import MapPlan, plan_maps
from .scales import MapScales, simulated_maps
from .watching import NORM, MapWatcher, combined, watching
