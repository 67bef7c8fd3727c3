"""The classes of the synthetic street, and which of them have boxes."""

from __future__ import annotations

CLASSES = ('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'car', 'pedestrian')
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN_CLASS, CAR, PEDESTRIAN = range(9)

# The countable classes; box labels are indices into this tuple.
BOX_CLASSES = ('sign', 'car', 'pedestrian')
BOX_LABELS = {SIGN_CLASS: 0, CAR: 1, PEDESTRIAN: 2}
