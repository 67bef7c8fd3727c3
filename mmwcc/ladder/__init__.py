"""Ladders: train many variants of one network by one recipe, with one command that can resume."""

from .plan import Ladder, Point, Step, read_ladder
from .results import draw_ladder, ladder_table
from .run import LadderRun, Outcome

__all__ = [
    'Ladder',
    'LadderRun',
    'Outcome',
    'Point',
    'Step',
    'draw_ladder',
    'ladder_table',
    'read_ladder',
]
