"""Files that a ladder keeps in the work folder of a point: its record, its log and a lock."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ['last_line', 'locked', 'read_record', 'write_record']

RECORD = 'ladder.json'


def read_record(folder: Path) -> dict[str, Any]:
    """Return the contents of ``ladder.json`` of a point, or an empty dict if it has none."""
    file = folder / RECORD
    return json.loads(file.read_text(encoding='utf-8')) if file.is_file() else {}


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write a record atomically."""
    draft = folder / f'{RECORD}.new'
    draft.write_text(json.dumps(record, indent=1), encoding='utf-8')
    draft.replace(folder / RECORD)


def last_line(log: Path) -> str:
    """Return the last non-empty line of a log."""
    lines = log.read_text(encoding='utf-8', errors='replace').split('\n') if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), 'it said nothing')


@contextmanager
def locked(folder: Path) -> Iterator[int | None]:
    """Lock a work folder for this process and its children; yield None if it is locked already."""
    import fcntl  # not available on Windows

    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / 'ladder.lock', os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield lock
    finally:
        os.close(lock)
