"""A weight, and the clip that was learned on it, kept together."""
from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmwcc.functional import quantize
from mmwcc.quantizers import UniformQuantizer

__all__ = ['ClippedWeight']

# A clip that loses a quarter of the energy of a weight, where another clip would lose a sixteenth of
# that, was not learned on this weight. Learned clips of 2 bits stay far below.
_LOST, _AVOIDABLE = 0.25, 16


if TYPE_CHECKING:  # every layer with this is a convolution
    _Conv2d = nn.Conv2d
else:
    _Conv2d = object


class ClippedWeight(_Conv2d):
    """Let the weight of a convolution and the clip of its quantizer change together or not at all.

    Attributes:
        weight_scale: Factor on each output channel of the rounded weight, shape (out_channels,): what
            was folded into the layer after its clip was learned. None for 1.
    """

    weight_quant: UniformQuantizer | None
    act_quant: UniformQuantizer | None
    weight_scale: Tensor | None

    def reset_parameters(self) -> None:
        """Start anew: random weights, and quantizers that have learned nothing."""
        super().reset_parameters()
        self._reset_quantizers()

    def _reset_quantizers(self, *roles: str) -> None:
        # The constructor of nn.Conv2d resets too, before there are any quantizers.
        for role in roles or ('weight_quant', 'act_quant'):
            quantizer = self._modules.get(role)
            if isinstance(quantizer, UniformQuantizer):
                quantizer.reset_parameters()
        if 'weight_scale' in self._buffers:
            self.weight_scale = None

    def rounded_weight(self) -> Tensor:
        """Return the weight as the products see it: quantized, times ``weight_scale``."""
        weight = self.weight
        if self.weight_quant is not None:
            weight = quantize(weight, *self.weight_quant.arguments(weight))
        if self.weight_scale is not None:
            weight = weight * self.weight_scale.reshape(-1, 1, 1, 1)
        return weight

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Register a parameter, as every assignment of one does; see :meth:`_replacement`."""
        if name == 'weight' and param is not None:
            param = self._replacement(param)
        super().register_parameter(name, param)

    def __delattr__(self, name: str) -> None:
        if name == 'weight' and name in self._parameters:
            self.__dict__['_deleted_weight'] = self._parameters[name]  # another may follow
        super().__delattr__(name)

    def _replacement(self, weight: nn.Parameter) -> nn.Parameter:
        """Return what becomes the weight where ``weight`` is assigned.

        That is ``weight`` itself as long as no clip was learned, and where it has the same values, or
        none but zeros. The present weight stays where ``weight`` is that one times a factor for each
        output channel, which is what folding of BatchNorm assigns.

        Raises:
            RuntimeError: If a clip was learned, and ``weight`` is anything else.
        """
        present = self._parameters.get('weight')
        if present is None:
            present = self.__dict__.pop('_deleted_weight', None)
        quantizer = self._modules.get('weight_quant')
        settled = quantizer is not None and quantizer.is_settled
        if present is None or not settled or self.__dict__.get('_loads', False):
            return weight
        # Where a trainer shards, flattens or moves parameters, their values stay the same.
        plain = type(present) is type(weight) is nn.Parameter and not weight.is_meta
        if not plain or present.shape != weight.shape or present.device != weight.device:
            return weight
        return self._folded(present, weight)

    @torch.no_grad()
    def _folded(self, present: nn.Parameter, weight: nn.Parameter) -> nn.Parameter:
        """Keep the present weight, and the factors between the two behind the rounding.

        One clip cannot serve output channels that were multiplied by different factors. Behind the
        rounding they are exact, whatever the quantizer.
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
                f'{type(self).__name__}: weight must be the present one times one factor for each output channel, as '
                'folding of BatchNorm makes it, because weight_quant has learned its clip; got another weight. Call '
                'weight_quant.reset_parameters() before and calibrate again, or load the weight by load_state_dict.')
        scale = factor if self.weight_scale is None else factor * self.weight_scale
        self.weight_scale = scale.to(present.dtype)
        return present

    def train(self, mode: bool = True):
        """Switch to training or evaluation, and warn where the clip cannot belong to the weight.

        A weight may be overwritten in place, as through ``weight.data``, which nothing notices then.
        """
        super().train(mode)
        if not mode and not self.clip_fits():
            warnings.warn(self._misfit(), stacklevel=2)
        return self

    def require_fitting_clip(self) -> None:
        """Refuse to go on with a clip that cannot belong to the weight.

        Raises:
            RuntimeError: If :meth:`clip_fits` is False.
        """
        if not self.clip_fits():
            raise RuntimeError(self._misfit())

    def _misfit(self) -> str:
        return (f'{type(self).__name__}: the clip of weight_quant must have been learned on the weight, got a weight '
                'that it cuts off although another clip would not. The weight was overwritten in place. Call '
                'weight_quant.reset_parameters() and calibrate again, or load the weight by load_state_dict.')

    @torch.no_grad()
    def clip_fits(self) -> bool:
        """Tell whether the clip can have been learned on the weight, by what rounding loses."""
        weight, quantizer = self._parameters.get('weight'), self._modules.get('weight_quant')
        if not isinstance(quantizer, UniformQuantizer) or type(weight) is not nn.Parameter:
            return True
        if quantizer.bits == 32 or weight.is_meta or not quantizer.is_settled:
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
            # The WCC authors' checkpoints hold point-wise kernels of nn.Conv1d, shape (O, C, 1).
            if state_dict[key].dim() == 3:
                state_dict[key] = state_dict[key].unsqueeze(-1)
            if state_dict[key].shape == self.weight.shape:
                self._expect(state_dict, prefix)
        self.__dict__['_loads'] = True  # assign=True assigns the weight before the clip
        try:
            super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        finally:
            del self.__dict__['_loads']

    def _expect(self, state_dict, prefix: str) -> None:
        """Forget what belongs to the present weight and does not come with the new one."""
        missing = [role for role in ('weight_quant', 'act_quant')
                   if f'{prefix}{role}.clip_alpha' not in state_dict]
        if missing:
            self._reset_quantizers(*missing)
        scale = state_dict.get(f'{prefix}weight_scale')
        self.weight_scale = None if scale is None else torch.empty_like(scale, device=self.weight.device)


def _lost(quantizer: UniformQuantizer, weight: Tensor) -> float:
    """Return the share of the energy of a weight that rounding loses."""
    values = quantizer.prepare(weight.detach()).float()
    clip, signed, spec = quantizer.arguments(values)
    rounded = quantize(values, clip.float(), signed, spec._replace(normalize=''))
    return float((rounded - values).square().sum() / values.square().sum())
