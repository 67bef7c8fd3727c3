"""Rules of the ``compression`` dictionary: exceptions for the layers that a pattern names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmwcc.layers import CompressedLayerMixin, check_component
from mmwcc.messages import check_keys

__all__ = ['QUANTIZERS', 'WAVELET_ONLY', 'Rule', 'check_mapping', 'check_pattern']

QUANTIZERS = ('weight_quant', 'act_quant')
WAVELET_ONLY = ('keep_ratio', 'levels', 'wavelet', 'selection')
"""Keys that only layers with a transform have."""

_RULE_KEYS = ('pattern', 'type', 'dense', *QUANTIZERS, *WAVELET_ONLY)


def check_mapping(owner: str, key: str, value) -> None:
    """Raise TypeError if a value is neither a dict nor None."""
    if value is not None and not isinstance(value, dict):
        raise TypeError(
            f'{owner}: {key} must be a dict or None, got {value!r}. Use dict(type=...), or None '
            f'for none.'
        )


@dataclass(frozen=True)
class Rule:
    """An exception for the layers whose whole qualified name matches ``pattern``.

    Attributes:
        pattern: Regular expression.
        changes: What to change: dense=True, type, keep_ratio, levels, wavelet, selection,
            weight_quant, act_quant. Quantizer dicts are merged into the general ones; None switches
            a quantizer off.
    """

    pattern: str
    changes: dict

    @classmethod
    def parse(cls, rule: dict, keys: Sequence[str] = _RULE_KEYS) -> Rule:
        """Check one entry of ``rules``.

        Args:
            rule: The entry.
            keys: The keys that it may have.

        Raises:
            TypeError: If the rule is not a dict.
            ValueError: If it has no pattern, an unknown key or an unknown type, or if the pattern
                is not a regular expression.
        """
        if not isinstance(rule, dict):
            raise TypeError(
                f'compression: a rule must be a dict, got {rule!r}. Use '
                f"dict(pattern=r'decode_head\\..*', "
                'keep_ratio=0.5).'
            )
        if 'pattern' not in rule:
            raise ValueError(
                f'compression: a rule needs a pattern, got {dict(rule)!r}. Add a regular '
                f'expression for '
                r"layer names, for example pattern=r'decode_head\..*'."
            )
        check_keys('compression rule', rule, keys)
        changes = {key: value for key, value in rule.items() if key != 'pattern'}
        for role in QUANTIZERS:
            check_mapping('compression rule', role, changes.get(role))
        check_pattern(rule['pattern'])
        if rule.get('type') is not None:
            check_component('compression rule', dict(type=rule['type']), base=CompressedLayerMixin)
        return cls(rule['pattern'], changes)

    def matches(self, name: str) -> bool:
        """Tell whether this rule applies to the layer ``name``."""
        return re.fullmatch(self.pattern, name) is not None


def check_pattern(pattern: str) -> None:
    """Raise ValueError if a pattern is no regular expression."""
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(
            f'compression: {pattern!r} is not a regular expression ({error}). Write a dot of a '
            f'name as '
            r"r'\.'."
        ) from error
