"""Ladders: many trainings of one network under one recipe, by one command that goes on where it stopped."""
from .plan import Ladder, Point, Step, read_ladder
from .results import draw_ladder, ladder_table
from .run import LadderRun, Outcome

__all__ = ['Ladder', 'LadderRun', 'Outcome', 'Point', 'Step', 'draw_ladder', 'ladder_table', 'read_ladder']
