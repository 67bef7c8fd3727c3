"""Read work folders and turn them into plots, tables and an HTML page."""

from .allocation_plot import plot_allocation
from .collect import LeftOut, read_work_dirs, report_folders
from .enlarged_crops import check_crop, plot_enlarged_crops
from .html_report import write_report
from .image_sizes import image_shape
from .metrics import common_metric
from .model_facts import ModelFacts, build_with_report, examine, examine_all
from .tradeoff import WHICH, TradeoffPoint, gather_points, write_tradeoff
from .tradeoff_plot import plot_tradeoff
from .work_dirs import WorkDir, read_work_dir

__all__ = [
    'WHICH',
    'LeftOut',
    'ModelFacts',
    'TradeoffPoint',
    'WorkDir',
    'build_with_report',
    'check_crop',
    'common_metric',
    'examine',
    'examine_all',
    'gather_points',
    'image_shape',
    'plot_allocation',
    'plot_enlarged_crops',
    'plot_tradeoff',
    'read_work_dir',
    'read_work_dirs',
    'report_folders',
    'write_report',
    'write_tradeoff',
]
