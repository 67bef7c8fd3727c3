"""The work of one step of a ladder: its folder, config and commands, and how a command is run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

import mmwcc
from mmwcc.checkpoint import final_checkpoint
from mmwcc.utils import LaunchError, check_checkpoint

from .plan import Step
from .point_config import fingerprint

__all__ = ['Execute', 'Job', 'run_command']

TOOLS = Path(mmwcc.__file__).parent / '.mim' / 'tools'

Execute = Callable[[Sequence[str], Path, int], int]
"""Runs a command with its output appended to a file and a lock kept open; returns its exit code."""


def run_command(command: Sequence[str], log: Path, lock: int) -> int:
    """Run a command in a process that holds the lock, even if the ladder ends before it."""
    with log.open('a', encoding='utf-8') as output:
        output.write(f'\n$ {" ".join(command)}\n')
        output.flush()
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],
            check=False,
        ).returncode


@dataclass
class Job:
    """A step with everything that the ladder file determines for it."""

    step: Step
    folder: Path
    config: Config
    settings: dict[str, Any]
    origins: dict[str, str]  # checkpoints by role, 'start' and 'teacher'
    needs: list[str]  # names of the steps that produce those checkpoints

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.settings)

    @property
    def checkpoint(self) -> str:
        """The checkpoint that other steps can start from."""
        if self.step.point.train:
            return str(final_checkpoint(self.config))
        if self.step.point.compression:
            return str(self.folder / 'calibrated.pth')
        return self.origins['start']

    @property
    def config_file(self) -> Path:
        """The config for the tools.

        It is named after the point, so that trainings with different seeds are recognized as one
        point.
        """
        return self.folder / 'point' / f'{self.step.point.name}.py'

    def commands(self) -> list[list[str]]:
        """Return the commands that still have to run."""
        point, config = self.step.point, str(self.config_file)
        commands = [['test.py', config, self.checkpoint]]
        if point.train and not _is_usable(self.checkpoint):
            commands.insert(0, ['train.py', config, '--resume'])
        elif not point.train and point.compression:
            options = [
                text
                for key, value in point.calibration.items()
                for text in (f'--{key.replace("_", "-")}', *([] if value is True else [str(value)]))
            ]
            commands.insert(
                0,
                [
                    'analysis_tools/calibrate.py',
                    config,
                    self.origins['start'],
                    '--no-test',
                    '--out',
                    self.checkpoint,
                    *options,
                ],
            )
        return [
            [sys.executable, str(TOOLS / name), *rest, '--work-dir', str(self.folder)]
            for name, *rest in commands
        ]


def _is_usable(checkpoint: str) -> bool:
    try:
        check_checkpoint(checkpoint)
    except LaunchError:
        return False
    return True
