"""Write compression dictionaries to data files that configs can inherit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ['CONFIG_SUFFIXES', 'write_compression']

CONFIG_SUFFIXES = ('.py', '.yml', '.yaml', '.json')
"""What mmengine reads as a config, and therefore as the ``_base_`` of one."""


class _Line(dict):
    """A rule that is written on one line."""


def write_compression(
    path: str | Path, compression: Mapping, *, note: str = '', **more: Mapping
) -> None:
    """Write a ``compression`` dictionary as YAML, one rule per line.

    The file is an ordinary mmengine config that needs no other file: configs can list it in
    ``_base_``, wherever they are stored and whichever program reads them.

    Args:
        path: File to write, ending in .yml.
        compression: The dictionary. Tuples become lists.
        note: Text for a comment at the top of the file. Defaults to nothing.
        **more: Other entries of the config, such as ``quantizer_paramwise``.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_representer(
        _Line,
        lambda dumper, line: dumper.represent_mapping(
            yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, line.items(), flow_style=True
        ),
    )
    plain = _plain(compression)
    if 'rules' in plain:
        plain['rules'] = [_Line(rule) for rule in plain['rules']]
    content = {'compression': plain, **_plain(more)}
    comments = ''.join(f'# {line}\n' for line in note.splitlines())
    text = yaml.dump(
        content, Dumper=Dumper, sort_keys=False, width=float('inf'), allow_unicode=True
    )
    Path(path).write_text(comments + text, encoding='utf-8')


def _plain(value: Any) -> Any:
    """Convert dictionaries and sequences of any kind to those that YAML knows."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
