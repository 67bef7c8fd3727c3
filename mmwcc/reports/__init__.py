"""Read work folders and turn them into plots, tables and an HTML page."""

from .allocation_plot import plot_allocation
from .enlarged_crops import check_crop, plot_enlarged_crops
from .html_report import write_report
from .model_facts import build_with_report, examine, image_shape
from .tradeoff import WHICH, TradeoffPoint, gather_points, plot_tradeoff, write_tradeoff
from .work_dirs import common_metric, read_work_dir

__all__ = [
    'WHICH',
    'TradeoffPoint',
    'build_with_report',
    'check_crop',
    'common_metric',
    'examine',
    'gather_points',
    'image_shape',
    'plot_allocation',
    'plot_enlarged_crops',
    'plot_tradeoff',
    'read_work_dir',
    'write_report',
    'write_tradeoff',
]
