"""Loading of optimizer states from before this release, when clips were scalars."""

from __future__ import annotations

from itertools import chain

from torch import Tensor
from torch.optim import Optimizer

__all__ = ['upgrade_optimizer_state']


def upgrade_optimizer_state(optimizer: Optimizer, state_dict: dict) -> dict:
    """Return the state of an optimizer with the shapes that its parameters have now.

    mmengine's optimizer wrappers do this when they load. Elsewhere, register it:
    ``optimizer.register_load_state_dict_pre_hook(upgrade_optimizer_state)``.

    Args:
        optimizer: The optimizer that is to load the state.
        state_dict: What ``optimizer.state_dict()`` returned in another run.

    Returns:
        A copy. Tensors that need no change are shared with ``state_dict``.

    Raises:
        ValueError: If several clips, one for each output channel, are to resume from a single one.
    """
    parameters = list(chain.from_iterable(group['params'] for group in optimizer.param_groups))
    indices = list(chain.from_iterable(group['params'] for group in state_dict['param_groups']))
    state = dict(state_dict['state'])
    for parameter, index in zip(parameters, indices, strict=False):
        _refuse_other_clips(parameter, state.get(index, {}))
        if parameter.shape == (1,) and index in state:
            # Adam counts its steps in a scalar, whatever the shape of the parameter.
            state[index] = {
                key: value.reshape(1) if _is_scalar(value) and key != 'step' else value
                for key, value in state[index].items()
            }
    return {**state_dict, 'state': state}


def _refuse_other_clips(parameter: Tensor, state: dict) -> None:
    """Refuse to resume several clips from the averages of one: each would have had other
    gradients.
    """
    single = any(
        isinstance(value, Tensor) and value.shape == (1,) and key != 'step'
        for key, value in state.items()
    )
    if single and parameter.dim() == 1 and parameter.numel() > 1:
        raise ValueError(
            'upgrade_optimizer_state: the state of an optimizer must be that of its '
            f'parameters, got that of one clip for {parameter.numel()} clips. Start a '
            'new run from the checkpoint (load_from with resume=False).'
        )


def _is_scalar(value) -> bool:
    return isinstance(value, Tensor) and value.dim() == 0
