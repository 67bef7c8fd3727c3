"""The model zoo: try every stock method of an OpenMMLab library, dense and compressed."""

from .batches import random_batch
from .methods import LIBRARIES, Method, methods, stock_config
from .page import faults, zoo_page, zoo_table
from .run import ZooRun, versions
from .trial import SIZES, Attempt, try_method

__all__ = [
    'LIBRARIES',
    'SIZES',
    'Attempt',
    'Method',
    'ZooRun',
    'faults',
    'methods',
    'random_batch',
    'stock_config',
    'try_method',
    'versions',
    'zoo_page',
    'zoo_table',
]
