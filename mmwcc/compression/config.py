"""The ``compression`` dictionary: what it may contain, and what it means for one layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from mmwcc.layers import (
    CompressedConvMixin,
    CompressedLinearMixin,
    check_component,
    check_quantizer,
)
from mmwcc.messages import check_keys
from mmwcc.registry import MODELS, type_name

from .only_if_faster import OnlyIfFaster, SpeedTable
from .rule import QUANTIZERS, WAVELET_ONLY, Rule, check_mapping, check_pattern

__all__ = ['CompressionConfig']

_SEPARATE_KEYS = ('rules', 'init', 'input_shape')
_LEAN_KEYS = ('input_shape',)
_MAP_KEYS = ('input_shape', 'bits', 'signed', 'round_sums')
WAVELET_TYPE, QUANT_TYPE = 'mmwcc.WaveletCompressedConv2d', 'mmwcc.QuantConv2d'
_WAVELET_LINEAR, QUANT_LINEAR = 'mmwcc.WaveletCompressedLinear', 'mmwcc.QuantLinear'
_LINEAR_FORMS = {WAVELET_TYPE: _WAVELET_LINEAR, QUANT_TYPE: QUANT_LINEAR}
"""What a type of convolutions means for linear layers, and the reverse, in a rule for both."""

WAVELET_TYPES = (WAVELET_TYPE, _WAVELET_LINEAR)
_PARTS = dict(
    pointwise=CompressedConvMixin, other=CompressedConvMixin, linear=CompressedLinearMixin
)
"""The keys that name a layer, and the base of what they may name."""

_MISPLACED = {
    **{key: f'Did you mean pointwise=dict({key}=...)?' for key in WAVELET_ONLY},
    'bits': 'Did you mean weight_quant=dict(bits=...) or act_quant=dict(bits=...)?',
    'type': 'Did you mean pointwise=dict(type=...)?',
}


def _plain(value):
    """Copy nested dicts and lists, and bring types into one form.

    mmengine adds a ``_scope_`` to everything that a ``package::`` base defines. It is left out.
    """
    if isinstance(value, dict):
        return {
            key: _component(item) if key == 'type' else _plain(item)
            for key, item in value.items()
            if key != '_scope_'
        }
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _component(kind):
    """Return a component of mmwcc as the name ``'mmwcc.X'``, and any other type unchanged."""
    # A name without a scope is looked up in the registry that will build the layer.
    found = (MODELS.get(kind) or kind) if isinstance(kind, str) and '.' not in kind else kind
    name = type_name(found)
    return name if name.startswith('mmwcc.') else kind


def _check_components(compression: dict) -> None:
    """Check the types and arguments of layers and quantizers."""
    for key, base in _PARTS.items():
        layer = compression.get(key) or {}
        if layer.get('type') is not None:
            check_component(f'compression {key}', _without_wavelets(layer), base=base)
    for role in QUANTIZERS:
        quantizer = compression.get(role) or {}
        if quantizer.get('type') is not None:
            check_quantizer(f'compression {role}', role, quantizer)


def _without_wavelets(layer: dict) -> dict:
    """Return the config of a layer without what it cannot use, if it transforms nothing."""
    if layer.get('type') in WAVELET_TYPES:
        return layer
    return {key: value for key, value in layer.items() if key not in WAVELET_ONLY}


def _maps(maps) -> dict | None:
    """Check the key ``maps`` and return it as a dictionary, or None if it is off."""
    if maps is None or isinstance(maps, bool):
        return {} if maps else None
    if not isinstance(maps, dict):
        raise TypeError(
            'compression: maps must be True, False, None or dict(input_shape=(height, width)), got '
            f'{maps!r}. Use True for the defaults.'
        )
    check_keys('compression maps', maps, _MAP_KEYS)
    return maps


def _check_integer(integer) -> None:
    kept = integer.get('keep_float', ()) if isinstance(integer, dict) else ()
    if not isinstance(integer, (bool, dict)) or not isinstance(kept, (list, tuple)):
        raise TypeError(
            f'compression: integer must be True, False or dict(keep_float=[names]), got '
            f'{integer!r}. Use True to load the checkpoint of a model that was converted to '
            f'integers.'
        )
    check_keys('compression integer', integer if isinstance(integer, dict) else {}, ('keep_float',))
    for pattern in kept:
        check_pattern(pattern)


@dataclass(frozen=True)
class CompressionConfig:
    """A checked ``compression`` dictionary.

    Args:
        pointwise: Config of the layer that replaces eligible 1x1 convolutions. Its quantizers take
            precedence over the general ones. With None, these convolutions stay.
        other: Config of the layer that replaces every other convolution. With None, these
            convolutions stay.
        linear: Config of the layer that replaces every ``nn.Linear``. With None, linear layers stay
            and are not in the report.
        weight_quant: Quantizer config of weights. Defaults to None, which does not quantize.
        act_quant: Quantizer config of inputs. Defaults to None, which does not quantize.
        keep_dense: Names or regular expressions of layers to leave alone. 'first' stands for the
            first convolution, 'last' for the prediction layers. Defaults to ('first', 'last').
        rules: Exceptions, each a dict with a ``pattern``; later rules win. Defaults to none.
        integer: Whether to build integer layers in place of those that
            :func:`mmwcc.inference.to_integer` would convert, so that the checkpoint of a converted
            model can be loaded. ``dict(keep_float=[names])`` does so except for the named layers.
            Such a model cannot be trained. Defaults to False.
        only_if_faster: ``dict(input_shape=(height, width), table=None)`` uses wavelets only where a
            table of measurements says that they are faster for images of that size, see
            :mod:`.only_if_faster`. Defaults to None, which uses them wherever the other keys say.
        separate: ``dict(rules=[], init='svd', input_shape=None)`` first splits k x k convolutions
            into depthwise and 1x1 ones, except those that keep_dense names, see
            :func:`mmwcc.compression.separate_convs`. ``dict()`` takes the defaults. Defaults to
            None, which splits nothing.
        lean_activations: ``dict(input_shape=(64, 64))`` lets activations save masks for backward
            where only wavelet compressed layers read them, see
            :func:`mmwcc.compression.lean_activations`. ``dict()`` takes the defaults. Defaults to
            None, which changes no activation.
        maps: ``dict(input_shape=(128, 128), bits=8, signed=None, round_sums=False)`` gives scales
            to the maps between quantized layers, which then round these maps in each forward pass,
            see :func:`mmwcc.maps.add_map_scales`. ``dict()`` or True takes the defaults. Together
            with ``integer``, whole networks compute in integers. Defaults to None, no scales.

    Types may be names, import paths or classes; those of mmwcc are stored as names.

    Raises:
        TypeError: If a value is of the wrong kind.
        ValueError: If a key or a type is unknown, a rule has no pattern, or a pattern is not a
            regular expression.
    """

    pointwise: dict | None = None
    other: dict | None = None
    linear: dict | None = None
    weight_quant: dict | None = None
    act_quant: dict | None = None
    keep_dense: tuple[str, ...] = ('first', 'last')
    rules: tuple[Rule, ...] = field(default=())
    integer: bool | dict = False
    only_if_faster: OnlyIfFaster | None = None
    separate: dict | None = None
    lean_activations: dict | None = None
    maps: dict | None = None

    @classmethod
    def check_keys(cls, compression: Iterable[str]) -> None:
        """Check the keys of a dictionary, but not their values.

        Raises:
            ValueError: If a key is unknown.
        """
        check_keys('compression', compression, [entry.name for entry in fields(cls)], _MISPLACED)

    @classmethod
    def parse(cls, compression: dict) -> CompressionConfig:
        """Check a plain dictionary and freeze it."""
        if not isinstance(compression, dict):
            raise TypeError(
                f'compression must be a dict, got {compression!r}. Inherit a preset of '
                'configs/_base_/compression, for example wcc_w8a8_k50.py, or use '
                "preset('wcc_w8a8_k50') of mmwcc.presets."
            )
        compression = _plain(compression)
        cls.check_keys(compression)
        for key in (*_PARTS, 'separate', 'lean_activations', *QUANTIZERS):
            check_mapping('compression', key, compression.get(key))
        _check_components(compression)
        check_keys('compression separate', compression.get('separate') or {}, _SEPARATE_KEYS)
        check_keys(
            'compression lean_activations', compression.get('lean_activations') or {}, _LEAN_KEYS
        )
        for key in ('keep_dense', 'rules'):
            if not isinstance(compression.get(key, ()), (list, tuple)):
                raise TypeError(
                    f'compression: {key} must be a list, got {compression[key]!r}. Use {key}=[...].'
                )
        for pattern in compression.get('keep_dense', ()):
            check_pattern(pattern)
        _check_integer(compression.get('integer', False))
        compression['maps'] = _maps(compression.get('maps'))
        values = dict(compression)
        if 'keep_dense' in values:
            values['keep_dense'] = tuple(values['keep_dense'])
        values['rules'] = tuple(Rule.parse(rule) for rule in values.get('rules', ()))
        if values.get('only_if_faster') is not None:
            values['only_if_faster'] = OnlyIfFaster.parse(values['only_if_faster'])
        return cls(**values)

    @property
    def speeds(self) -> SpeedTable | None:
        """The measured speeds that the dictionary names, or None if it names none."""
        return self.only_if_faster.table if self.only_if_faster else None

    def insists_on_type(self, name: str) -> bool:
        """Tell whether a rule names the type of the layer that replaces a convolution."""
        return any(rule.matches(name) and 'type' in rule.changes for rule in self.rules)

    def layer_config(self, name: str, eligible: bool, linear: bool = False) -> dict | None:
        """Return the config of the layer that replaces a convolution or linear layer.

        Args:
            name: Qualified name of the layer.
            eligible: Whether it can be wavelet compressed.
            linear: Whether it is a linear layer. Defaults to False.

        Returns:
            ``type`` and keyword-only arguments of the layer to build, or None if it stays dense.
        """
        base = self._base(eligible, linear)
        config = {'weight_quant': self.weight_quant, 'act_quant': self.act_quant, **(base or {})}
        for rule in self.rules:
            if rule.matches(name):
                config = _merged(config, rule.changes)
        kind = config.get('type')
        if config.pop('dense', False) or kind is None:
            return None
        forms = _LINEAR_FORMS if linear else {other: one for one, other in _LINEAR_FORMS.items()}
        kind = config['type'] = forms.get(kind, kind)
        if kind == QUANT_TYPE and config['weight_quant'] is None and config['act_quant'] is None:
            return None
        return _without_wavelets(config)

    def _base(self, eligible: bool, linear: bool) -> dict | None:
        """Return the config for one kind of layers."""
        if linear:
            return self.linear
        return self.pointwise if eligible else self.other

    def quantized_config(self, name: str, linear: bool = False) -> dict | None:
        """Return the config of the layer that only quantizes what a wavelet layer would transform.

        The quantizers of ``pointwise`` and ``linear`` are for coefficients. So it has the general
        ones where there are any, with the exceptions of the rules.

        Args:
            name: Qualified name of the layer.
            linear: Whether it is a linear layer. Defaults to False.

        Returns:
            As :meth:`layer_config`. A linear layer is replaced even if nothing is quantized, since
            the new one multiplies where that is fastest.
        """
        rules = tuple(
            Rule(rule.pattern, {key: new for key, new in rule.changes.items() if key != 'type'})
            for rule in self.rules
        )
        own = self._base(eligible=True, linear=linear) or {}
        quantizers: dict[str, Any] = {
            role: getattr(self, role) or own.get(role) for role in QUANTIZERS
        }
        plain = replace(self, rules=rules, linear=dict(type=QUANT_LINEAR), **quantizers)
        return plain.layer_config(name, eligible=False, linear=linear)


def _merged(config: dict, changes: dict) -> dict:
    merged = {**config, **changes}
    for role in QUANTIZERS:
        old, new = config[role], changes.get(role)
        if (
            old is not None
            and new is not None
            and new.get('type', old.get('type')) == old.get('type')
        ):
            merged[role] = {**old, **new}
    return merged
