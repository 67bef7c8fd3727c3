"""The one ``torch.library`` namespace of mmwcc, and how an operator enters it."""
from __future__ import annotations

from functools import wraps

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


def register(schema: str, reference, fake, setup_context=None, backward=None):
    """Define ``mmwcc::<schema>`` with a torch reference for every device, a fake and, if given, a gradient.

    Returns:
        The callable ``torch.ops.mmwcc.<name>``.
    """
    name = schema.split('(', 1)[0]
    LIBRARY.define(schema)
    LIBRARY.impl(name, without_autocast(reference), 'CompositeExplicitAutograd')
    torch.library.register_fake(f'mmwcc::{name}', fake, lib=LIBRARY)
    if backward is not None:
        torch.library.register_autograd(f'mmwcc::{name}', backward, setup_context=setup_context, lib=LIBRARY)
    return getattr(torch.ops.mmwcc, name)
