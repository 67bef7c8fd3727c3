"""Train and test the points of a ladder one after the other, in separate processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from mmwcc.progress import duration
from mmwcc.reports import read_work_dir
from mmwcc.utils import LaunchError, check_checkpoint, is_address

from .files import last_line, locked, read_record, write_record
from .job import Execute, Job, run_command
from .plan import Ladder, Step
from .point_config import build_config, differences, file_fingerprint, settings_of

__all__ = ['LadderRun', 'Outcome']

LOG = 'ladder.log'


@dataclass
class Outcome:
    """The status of a point.

    Attributes:
        state: 'new', 'begun', 'finished' or 'changed' (begun or finished under other settings), or
            the reason why it did not finish: 'failed', 'waiting' (for a point that is not finished)
            or 'busy' (another process works on it).
        message: Details of the state.
    """

    state: str
    message: str = ''


@dataclass
class LadderRun:
    """Run a ladder in a folder, continuing what has been run there before.

    A point is finished when its work folder holds a result for the config that the ladder defines.
    The folder contains the point's config, logs, checkpoints and tests as tools/train.py and
    tools/test.py write them. It also contains ``ladder.json`` with the fingerprint, settings,
    minutes and metrics. An interrupted training is resumed. Several processes can work on one
    ladder, because a process locks the point it is working on.

    Args:
        ladder: The ladder.
        folder: Folder that contains the work folders of the points.
        steps: Steps to run, from :meth:`Ladder.steps`.
        execute: Runs a command, see :data:`Execute`. Defaults to running it in a process.
        say: Receives lines of progress. Defaults to printing them.
        dry: Whether nothing will be run, so that checkpoints need not be there. Defaults to False.

    Attributes:
        outcomes: The status of each step.
        missing: Checkpoints that the ladder begins with and that are not there.

    Raises:
        LaunchError: If a checkpoint that does not come from a point of the ladder is missing or
            damaged.
        ValueError: If the compression of a point is not valid.

    Note:
        The fingerprint covers the config and the checkpoints that the ladder begins with, but
        neither code nor data.
    """

    ladder: Ladder
    folder: Path
    steps: Sequence[Step]
    execute: Execute = run_command
    say: Callable[[str], None] = lambda text: print(text, flush=True)
    dry: bool = False
    outcomes: dict[str, Outcome] = field(default_factory=dict, init=False)
    missing: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        for step in self.steps:
            try:
                self._jobs[step.name] = self._job(step)
                self.outcomes[step.name] = self._state(self._jobs[step.name])
            except _NotYet as error:
                self.outcomes[step.name] = Outcome('failed', str(error))

    def _job(self, step: Step) -> Job:
        folder, roles = self.folder / step.name, ('start', 'teacher')
        origins, prints, needs = {}, {}, []
        for role, origin in zip(roles, self.ladder.origins(step.point), strict=False):
            if origin in self.ladder.points:
                name = self.ladder.step(self.ladder.points[origin], step.seed or 0).name
                if name not in self._jobs:
                    raise _NotYet(f'its {role} {name} cannot be had')
                needs.append(name)
                origins[role], prints[role] = (
                    self._jobs[name].checkpoint,
                    self._jobs[name].fingerprint,
                )
            else:
                origins[role], prints[role] = origin, self._fingerprint(origin)
        try:
            config = build_config(
                self.ladder, step, folder, origins['start'], origins.get('teacher')
            )
        except LaunchError as error:
            raise _NotYet(str(error)) from error
        return Job(step, folder, config, settings_of(config, step.point, prints), origins, needs)

    def _fingerprint(self, checkpoint: str) -> str:
        """Return the fingerprint of a checkpoint that the ladder begins with."""
        if self.dry and not is_address(checkpoint) and not Path(checkpoint).expanduser().is_file():
            self.missing.add(checkpoint)
            return 'missing'
        check_checkpoint(checkpoint)
        return file_fingerprint(checkpoint)

    def _state(self, job: Job) -> Outcome:
        record = read_record(job.folder)
        if not record:
            return Outcome('new')
        if record['fingerprint'] != job.fingerprint:
            return Outcome('changed', '; '.join(differences(record['settings'], job.settings)[:4]))
        return Outcome('finished' if record.get('metrics') else 'begun')

    def records(self) -> dict[str, dict[str, Any]]:
        """Return the contents of ``ladder.json`` of all finished steps, by name."""
        return {
            name: read_record(self._jobs[name].folder)
            for name, outcome in self.outcomes.items()
            if outcome.state == 'finished'
        }

    def refuse_changes(self) -> None:
        """Refuse to mix results of different recipes.

        Raises:
            ValueError: If a point has been begun or finished under other settings.
        """
        changed = {
            name: outcome.message
            for name, outcome in self.outcomes.items()
            if outcome.state == 'changed'
        }
        if changed:
            name, message = next(iter(changed.items()))
            others = f' So have {len(changed) - 1} more.' if len(changed) > 1 else ''
            raise ValueError(
                f'ladder: {name} in {self.folder} has been run under other settings: '
                f'{message}.{others} Choose another --work-dir, or train what has changed again '
                'with --force.'
            )

    def set_aside_changes(self) -> None:
        """Move the work folders of changed points aside, so that these points are trained again."""
        for name, outcome in self.outcomes.items():
            if outcome.state == 'changed':
                folder, number = self._jobs[name].folder, 1
                while (aside := self.folder / 'old' / f'{name}-{number}').exists():
                    number += 1
                aside.parent.mkdir(exist_ok=True)
                with locked(folder) as lock:
                    if lock is None:
                        raise ValueError(
                            f'ladder: {name} cannot be trained again while another process works '
                            'on it.'
                        )
                    folder.rename(aside)
                self.say(f'{name}: moved to {aside}, for its settings have changed')
                self.outcomes[name] = Outcome('new')

    def commands(self, name: str) -> list[list[str]]:
        """Return the commands left to run for a step; none if it is finished or cannot run."""
        if name not in self._jobs or self.outcomes[name].state == 'finished':
            return []
        return self._jobs[name].commands()

    def run(self) -> bool:
        """Run all unfinished steps. A failure only stops the steps that start from it.

        Returns:
            Whether everything is finished.

        Raises:
            ValueError: If a point has been run under other settings.
        """
        self.refuse_changes()
        for number, step in enumerate(self.steps, 1):
            outcome = self.outcomes[step.name]
            if outcome.state in ('new', 'begun'):
                self.say(
                    f'[{number}/{len(self.steps)}] {step.name}: '
                    f'{"begins" if outcome.state == "new" else "goes on"}{self._remaining()}'
                )
                outcome = self.outcomes[step.name] = self._run(self._jobs[step.name])
            self.say(
                f'[{number}/{len(self.steps)}] {step.name}: {outcome.state}'
                + (f', {outcome.message}' if outcome.message else '')
            )
        return all(outcome.state == 'finished' for outcome in self.outcomes.values())

    def _run(self, job: Job) -> Outcome:
        missing = [name for name in job.needs if self.outcomes[name].state != 'finished']
        if missing:
            return Outcome('waiting', f'for {", ".join(missing)}')
        with locked(job.folder) as lock:
            if lock is None:
                return Outcome('busy', 'another process works on it')
            state = self._state(job)
            if state.state in ('finished', 'changed'):  # another process has run it in the meantime
                return state
            return self._train_and_test(job, lock)

    def _train_and_test(self, job: Job, lock: int) -> Outcome:
        record = read_record(job.folder) or dict(
            fingerprint=job.fingerprint, settings=job.settings, minutes=0.0
        )
        write_record(job.folder, record)
        job.config_file.parent.mkdir(exist_ok=True)
        job.config.dump(job.config_file)
        before = {run.name for run in job.folder.iterdir()}
        for command in job.commands():
            began = time.monotonic()
            code = self.execute(command, job.folder / LOG, lock)
            record['minutes'] += (time.monotonic() - began) / 60
            write_record(job.folder, record)
            if code:
                return Outcome(
                    'failed',
                    f'{Path(command[1]).name} ended with {code}: {last_line(job.folder / LOG)} '
                    f'({job.folder / LOG})',
                )
        try:
            tests = [test for test in read_work_dir(job.folder).tests if test.run not in before]
        except (FileNotFoundError, ValueError) as error:
            return Outcome('failed', str(error))
        if not tests:
            return Outcome('failed', f'test.py left no metrics in {job.folder}')
        record['metrics'] = tests[-1].metrics
        write_record(job.folder, record)
        return Outcome(
            'finished', ', '.join(f'{name} {value:g}' for name, value in record['metrics'].items())
        )

    def _remaining(self) -> str:
        """Estimate the remaining time from the points that are finished."""
        known = {
            kind: [
                record['minutes']
                for name, record in self.records().items()
                if self._jobs[name].step.point.train == kind
            ]
            for kind in (True, False)
        }
        left = [
            job.step.point.train
            for name, job in self._jobs.items()
            if self.outcomes[name].state in ('new', 'begun')
        ]
        if not all(known[kind] for kind in left):
            return ''
        return f', about {duration(60 * sum(mean(known[kind]) for kind in left))} left'


class _NotYet(Exception):
    """Raised for a point that cannot run now while others can."""
