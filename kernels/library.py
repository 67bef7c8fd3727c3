"""The one ``torch.library`` namespace of mmwcc, and how an operator enters it."""
from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import NamedTuple

import torch

LIBRARY = torch.library.Library('mmwcc', 'FRAGMENT')


def without_autocast(reference):
    """Return ``reference`` with autocast off while it runs."""
    # Autocast stays active inside an operator's kernel: a matmul there would run in half precision and move the
    # selection to other positions.
    @wraps(reference)
    def run(tensor, *args):
        with torch.autocast(tensor.device.type, enabled=False):
            return reference(tensor, *args)

    return run


class Cost(NamedTuple):
    """What one call of an operator computes, as far as costs count it.

    Attributes:
        macs: Multiply-accumulate operations.
        product: What tables call them: 'conv', 'linear' or 'int8_linear'; '' without any.
        transform: Channels, positions of all images and depth of a Haar transform, or None.
    """
    macs: int = 0
    product: str = ''
    transform: tuple[int, int, int] | None = None


def free(*arguments) -> Cost:
    """State that an operator costs nothing: moving, selecting and rounding are not counted."""
    return Cost()


COSTS: dict[str, Callable[..., Cost]] = {}
"""The cost rule of each operator, by its name.

A rule takes the arguments of the operator, with shapes in the place of tensors.
"""


def register(schema: str, reference, fake, setup_context=None, backward=None, *,
             cost: Callable[..., Cost]):
    """Define ``mmwcc::<schema>`` with a torch reference for every device, a fake and, if given, a gradient.

    Args:
        schema: Name, arguments and results, as :meth:`torch.library.Library.define` takes them.
        reference: The torch implementation.
        fake: What tells shapes, dtypes and strides of the results.
        setup_context: What the gradient needs to save. Defaults to None.
        backward: The gradient. Defaults to None, none.
        cost: The cost rule, see :data:`COSTS`; :func:`free` for an operator that costs nothing.

    Returns:
        The callable ``torch.ops.mmwcc.<name>``.
    """
    name = schema.split('(', 1)[0]
    LIBRARY.define(schema)
    COSTS[name] = cost
    LIBRARY.impl(name, without_autocast(reference), 'CompositeExplicitAutograd')
    torch.library.register_fake(f'mmwcc::{name}', fake, lib=LIBRARY)
    if backward is not None:
        torch.library.register_autograd(f'mmwcc::{name}', backward, setup_context=setup_context, lib=LIBRARY)
    return getattr(torch.ops.mmwcc, name)
