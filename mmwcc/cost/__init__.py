"""The cost of networks: operations, bit operations and memory."""

from .count import CostReport, LayerCost, count_cost
from .counters import tensors_in
from .formulas import CONVENTIONS, check_convention

__all__ = [
    'CONVENTIONS',
    'CostReport',
    'LayerCost',
    'check_convention',
    'count_cost',
    'tensors_in',
]
