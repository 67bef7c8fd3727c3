"""A weight that stays together with the clip learned on it."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmwcc.functional import quantize
from mmwcc.quantizers import UniformQuantizer

__all__ = ['ClippedWeight']

# A clip was not learned on this weight if rounding with it loses a quarter of the weight's energy
# and a freshly calibrated clip would lose at most a sixteenth of that. Clips learned at 2 bits stay
# far below both limits.
_LOST, _AVOIDABLE = 0.25, 16


if TYPE_CHECKING:

    class _Layer(nn.Module):
        """What every class that uses the mixin is: a convolution or a linear layer."""

        weight: Tensor

        def reset_parameters(self) -> None: ...

else:
    _Layer = object


class ClippedWeight(_Layer):
    """Make sure that a layer's weight and the clip of its quantizer only change together.

    Attributes:
        weight_scale: One factor for each output channel of the rounded weight, shape
            (out_channels,). It holds what was folded into the layer after its clip was learned.
            None means 1.
    """

    weight_quant: UniformQuantizer | None
    act_quant: UniformQuantizer | None
    weight_scale: Tensor | None

    def reset_parameters(self) -> None:
        """Start over, with random weights and with quantizers that have learned nothing."""
        super().reset_parameters()
        self._reset_quantizers()

    def _reset_quantizers(self, *roles: str) -> None:
        # The constructor of the dense layer also resets, and does so before any quantizer exists.
        for role in roles or ('weight_quant', 'act_quant'):
            quantizer = self._modules.get(role)
            if isinstance(quantizer, UniformQuantizer):
                quantizer.reset_parameters()
        if 'weight_scale' in self._buffers:
            self.weight_scale = None

    def rounded_weight(self) -> Tensor:
        """Return the weight that the layer multiplies by: quantized, times ``weight_scale``."""
        weight = self.weight
        if self.weight_quant is not None:
            weight = quantize(weight, *self.weight_quant.arguments(weight))
        if self.weight_scale is not None:
            weight = weight * self.weight_scale.reshape(-1, *[1] * (weight.dim() - 1))
        return weight

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Register a parameter. Assigning one ends up here too; see :meth:`_replacement`."""
        if name == 'weight' and param is not None:
            param = self._replacement(param)
        super().register_parameter(name, param)

    def __delattr__(self, name: str) -> None:
        if name == 'weight' and name in self._parameters:
            self.__dict__['_deleted_weight'] = self._parameters[name]  # a replacement may follow
        super().__delattr__(name)

    def _replacement(self, weight: nn.Parameter) -> nn.Parameter:
        """Return the parameter to register when ``weight`` is assigned.

        This is ``weight`` itself if no clip has been learned, if its values equal the present ones,
        or if they are all zero. Folding BatchNorm assigns the present weight times one factor for
        each output channel. In that case the present weight stays, and ``weight_scale`` takes up
        the factors.

        Raises:
            RuntimeError: If a clip was learned and ``weight`` is none of these.
        """
        present = self._parameters.get('weight')
        if present is None:
            present = self.__dict__.pop('_deleted_weight', None)
        quantizer = self._modules.get('weight_quant')
        settled = quantizer is not None and quantizer.is_settled
        if present is None or not settled or self.__dict__.get('_loads', False):
            return weight
        # Trainers that shard, flatten or move parameters do not change their values.
        plain = type(present) is type(weight) is nn.Parameter and not weight.is_meta
        if not plain or present.shape != weight.shape or present.device != weight.device:
            return weight
        return self._folded(present, weight)

    @torch.no_grad()
    def _folded(self, present: nn.Parameter, weight: nn.Parameter) -> nn.Parameter:
        """Keep the present weight and apply the factors between the two after rounding.

        One clip cannot serve output channels that were multiplied by different factors. Applied
        after rounding, the factors are exact for every quantizer.
        """
        old, new = (tensor.detach().double().flatten(1) for tensor in (present, weight))
        if torch.equal(old, new) or not new.any():
            return weight
        info = torch.finfo(weight.dtype)
        energy = old.square().sum(1).clamp_min(torch.finfo(torch.double).tiny)
        factor = (old * new).sum(1) / energy
        allowed = 8 * info.eps * (new.abs().amax(1, keepdim=True) + info.smallest_normal)
        if not ((new - factor.unsqueeze(1) * old).abs() <= allowed).all():
            raise RuntimeError(
                f'{type(self).__name__}: weight must be the present one times one factor for each '
                'output channel, as folding of BatchNorm makes it, because weight_quant has '
                'learned its clip; got another weight. Call weight_quant.reset_parameters() before '
                'and calibrate again, or load the weight by load_state_dict.'
            )
        scale = factor if self.weight_scale is None else factor * self.weight_scale
        self.weight_scale = scale.to(present.dtype)
        return present

    def train(self, mode: bool = True):
        """Switch to training or evaluation mode, and warn if the clip cannot belong to the weight.

        A weight can be overwritten in place, for example through ``weight.data``. Nothing notices
        that when it happens, so it is checked here.
        """
        super().train(mode)
        if not mode and not self.clip_fits():
            warnings.warn(self._misfit(), stacklevel=2)
        return self

    def require_fitting_clip(self) -> None:
        """Raise if the clip cannot belong to the weight.

        Raises:
            RuntimeError: If :meth:`clip_fits` is False.
        """
        if not self.clip_fits():
            raise RuntimeError(self._misfit())

    def _misfit(self) -> str:
        return (
            f'{type(self).__name__}: the clip of weight_quant must have been learned on the '
            'weight, got a weight that it cuts off although another clip would not. The weight was '
            'overwritten in place. Call weight_quant.reset_parameters() and calibrate again, or '
            'load the weight by load_state_dict.'
        )

    @torch.no_grad()
    def clip_fits(self) -> bool:
        """Tell from the rounding error whether the clip can have been learned on this weight."""
        weight, quantizer = self._parameters.get('weight'), self._modules.get('weight_quant')
        if not isinstance(quantizer, UniformQuantizer) or type(weight) is not nn.Parameter:
            return True
        if not quantizer.is_on or weight.is_meta or not quantizer.is_settled:
            return True
        if not weight.isfinite().all() or not weight.any():
            return True
        lost = _lost(quantizer, weight)
        if lost < _LOST:
            return True
        fresh = copy.deepcopy(quantizer)
        fresh.alone = True
        fresh.reset_parameters()
        fresh.calibrate(weight)
        return lost < _AVOIDABLE * _lost(fresh, weight)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        key = f'{prefix}weight'
        if key in state_dict:
            # In the WCC authors' checkpoints, 1x1 kernels are those of nn.Conv1d, shape (O, C, 1).
            if state_dict[key].dim() == 3 and self.weight.dim() == 4:
                state_dict[key] = state_dict[key].unsqueeze(-1)
            if state_dict[key].shape == self.weight.shape:
                self._expect(state_dict, prefix)
        self.__dict__['_loads'] = True  # with assign=True, the weight is assigned before the clip
        try:
            super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        finally:
            del self.__dict__['_loads']

    def _expect(self, state_dict, prefix: str) -> None:
        """Forget the clips and factors of the present weight that the new one does not replace."""
        missing = [
            role
            for role in ('weight_quant', 'act_quant')
            if f'{prefix}{role}.clip_alpha' not in state_dict
        ]
        if missing:
            self._reset_quantizers(*missing)
        scale = state_dict.get(f'{prefix}weight_scale')
        self.weight_scale = (
            None if scale is None else torch.empty_like(scale, device=self.weight.device)
        )


def _lost(quantizer: UniformQuantizer, weight: Tensor) -> float:
    """Return the fraction of a weight's energy that rounding loses."""
    values = quantizer.prepare(weight.detach()).float()
    clip, signed, spec = quantizer.arguments(values)
    rounded = quantize(values, clip.float(), signed, spec._replace(normalize=''))
    return float((rounded - values).square().sum() / values.square().sum())
