"""The configs on a page of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mmengine.config import Config

from mmwcc.compressed_config import is_compressed

from .html_entry import Entry
from .html_parts import Cell, code, table

__all__ = ['settings_part']

_IGNORED_SETTINGS = ('work_dir', 'launcher', 'log_level', 'resume')
_LONGEST_SETTING = 300


def settings_part(entries: Sequence[Entry]) -> str:
    """Return the differences between configs, those of the model first, and each full config."""
    flat = [_flatten(_comparable(entry.work_dir.config)) for entry in entries]
    names = dict.fromkeys(name for settings in flat for name in settings)
    differing = [name for name in names if len({settings.get(name) for settings in flat}) > 1]
    differing.sort(key=lambda name: not name.startswith('model.'))
    parts = []
    if differing:
        rows = [
            ('', [Cell(code(name)), *(_setting(settings, name) for settings in flat)])
            for name in differing
        ]
        headers = ['Setting', *(entry.name for entry in entries)]
        tall = len(rows) > 15
        parts.append(table('What differs between the configs', headers, rows, tall=tall))
    elif len(entries) > 1:
        parts.append('<p>The configs do not differ.</p>')
    parts += [
        f'<details><summary>Config of {entry.label}</summary><pre tabindex="0">'
        f'{_config_text(entry)}</pre></details>'
        for entry in entries
    ]
    return '\n'.join(parts)


def _setting(settings: Mapping[str, str], name: str) -> Cell:
    """Return the value of a setting."""
    if name not in settings:
        return Cell('<span class="quiet">not set</span>')
    return Cell(code(_shortened(settings[name])))


def _config_text(entry: Entry) -> str:
    return escape(
        '\n'.join(
            f'{name} = {value}' for name, value in _flatten(entry.work_dir.config.to_dict()).items()
        )
    )


def _comparable(config: Config) -> dict[str, Any]:
    """Return the part of a config that determines the model."""
    settings = {
        key: value for key, value in config.to_dict().items() if key not in _IGNORED_SETTINGS
    }
    if config.get('resume'):
        # This names where training was resumed, not where it began.
        settings.pop('load_from', None)
    if is_compressed(settings.get('model') or {}):
        settings.pop('compression', None)  # the model has its own copy
    return settings


def _flatten(value: Any, prefix: str = '') -> dict[str, str]:
    """Flatten nested dictionaries, and lists of them, to dotted names with values as in Python."""
    if isinstance(value, dict) and value:
        items = [(f'{prefix}.{key}' if prefix else str(key), part) for key, part in value.items()]
    elif isinstance(value, (list, tuple)) and any(isinstance(part, dict) for part in value):
        items = [(f'{prefix}[{place}]', part) for place, part in enumerate(value)]
    else:
        return {prefix: repr(value)}
    return {name: leaf for key, part in items for name, leaf in _flatten(part, key).items()}


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST_SETTING:
        return text
    return f'{text[:_LONGEST_SETTING]} … ({len(text):,} characters)'
