"""What a ladder keeps in the work folder of a point: its record, its log and a lock."""
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
    """Return what ``ladder.json`` says of a point, empty without one."""
    file = folder / RECORD
    return json.loads(file.read_text(encoding='utf-8')) if file.is_file() else {}


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write a record whole or not at all."""
    draft = folder / f'{RECORD}.new'
    draft.write_text(json.dumps(record, indent=1), encoding='utf-8')
    draft.replace(folder / RECORD)


def last_line(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = log.read_text(encoding='utf-8', errors='replace').split('\n') if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), 'it said nothing')


@contextmanager
def locked(folder: Path) -> Iterator[int | None]:
    """Lock a work folder for this process and those that inherit the lock; None if another one holds it."""
    import fcntl  # not on Windows
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
