"""The one ``torch.library`` namespace of mmwcc, and how operators are registered in it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import NamedTuple

import torch

LIBRARY = torch.library.Library('mmwcc', 'FRAGMENT')


def without_autocast(reference):
    """Return ``reference`` wrapped so that autocast is off while it runs."""

    # Autocast stays active inside the kernel of an operator. A matmul there would run in half
    # precision and could select other positions.
    @wraps(reference)
    def run(tensor, *args):
        with torch.autocast(tensor.device.type, enabled=False):
            return reference(tensor, *args)

    return run


class Cost(NamedTuple):
    """What one call of an operator computes, in the units in which costs are counted.

    Attributes:
        macs: Multiply-accumulate operations.
        product: The kind of product that tables list them under: 'conv', 'linear' or 'int8_linear';
            '' if there are none.
        transform: Channels, positions of all images and depth of a Haar transform, or None.
    """

    macs: int = 0
    product: str = ''
    transform: tuple[int, int, int] | None = None


def free(*arguments) -> Cost:
    """Return no cost: moving, selecting and rounding values are not counted."""
    return Cost()


COSTS: dict[str, Callable[..., Cost]] = {}
"""The cost rule of each operator, by its name.

A rule takes the arguments of the operator, with shapes in place of tensors.
"""


def register(
    schema: str, reference, fake, setup_context=None, backward=None, *, cost: Callable[..., Cost]
):
    """Define ``mmwcc::<schema>`` with a torch reference, a fake and, if given, a gradient.

    The reference serves every device.

    Args:
        schema: Name, arguments and results, as :meth:`torch.library.Library.define` takes them.
        reference: The torch implementation.
        fake: Function that returns empty results of the right shapes, dtypes and strides.
        setup_context: Function that saves what the gradient needs. Defaults to None.
        backward: Function that computes the gradient. Defaults to None, no gradient.
        cost: The cost rule, see :data:`COSTS`. Use :func:`free` for an operator that costs nothing.

    Returns:
        The callable ``torch.ops.mmwcc.<name>``.
    """
    name = schema.split('(', 1)[0]
    LIBRARY.define(schema)
    COSTS[name] = cost
    LIBRARY.impl(name, without_autocast(reference), 'CompositeExplicitAutograd')
    torch.library.register_fake(f'mmwcc::{name}', fake, lib=LIBRARY)
    if backward is not None:
        torch.library.register_autograd(
            f'mmwcc::{name}', backward, setup_context=setup_context, lib=LIBRARY
        )
    return getattr(torch.ops.mmwcc, name)
