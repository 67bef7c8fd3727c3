"""Find the runs among any files and folders, and report on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmwcc.progress import track

from .html_report import write_report
from .run_files import find_runs
from .work_dirs import NoResultsError, WorkDir, read_work_dir

__all__ = ['LeftOut', 'read_work_dirs', 'report_folders']


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is no run.

    Attributes:
        path: The file or folder.
        reason: Why it is left out, in full sentences.
    """

    path: Path
    reason: str

    def __str__(self) -> str:
        return f'left out {self.path}: {self.reason}'


def read_work_dirs(
    paths: Sequence[str | Path], *, verbose: bool = False
) -> tuple[list[WorkDir], list[LeftOut]]:
    """Read the work folders among any files and folders, such as those of ``work_dirs/*``.

    Args:
        paths: Files and folders.
        verbose: Whether to say on stderr how many are read already. Defaults to False.

    Returns:
        The work folders that can be read, and what else there is.

    Raises:
        ValueError: If there is no work folder among them.

    Example:
        >>> work_dirs, left_out = read_work_dirs(list(Path('work_dirs').iterdir()))
    """
    work_dirs: list[WorkDir] = []
    left_out: list[LeftOut] = []
    for path in map(Path, track(paths, 'reading', 'files and folders', verbose=verbose)):
        try:
            work_dirs.append(read_work_dir(path))
        except (Exception, SystemExit) as error:  # a config is a program, which may raise anything
            left_out.append(LeftOut(path, _reason(path, error)))
    if not work_dirs:
        raise ValueError(
            'at least one work folder of a training or test must be given, got none. '
            + ' '.join(f'{each.path}: {each.reason}' for each in left_out)
        )
    return work_dirs, left_out


def report_folders(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    title: str = 'Models compared',
    metric: str | None = None,
    shape: Sequence[int] | None = None,
    images: int = 6,
    verbose: bool = False,
) -> list[LeftOut]:
    """Write a page that compares all runs among some files and folders, the first one leading.

    Args:
        paths: Files and folders. What is no run is left out, and named on the page.
        out: The HTML file.
        title: Title of the page. Defaults to 'Models compared'.
        metric: See :func:`write_report`. Defaults to None.
        shape: See :func:`write_report`. Defaults to None.
        images: See :func:`write_report`. Defaults to 6.
        verbose: See :func:`write_report`. Defaults to False.

    Returns:
        What was left out.

    Raises:
        ValueError: If there is no run among them, no run has the metric, or images is negative.
    """
    work_dirs, left_out = read_work_dirs(paths, verbose=verbose)
    write_report(
        work_dirs,
        out,
        title=title,
        metric=metric,
        shape=shape,
        images=images,
        remarks=[f'{each.path} was left out: {each.reason}' for each in left_out],
        verbose=verbose,
    )
    return left_out


def _reason(path: Path, error: BaseException) -> str:
    """Say why a path is no work folder."""
    if not path.exists():
        return 'It does not exist.'
    if not path.is_dir():
        return 'It is a file, not a work folder.'
    try:
        content = sorted(path.iterdir())
        inside = [entry.name for entry in content if entry.is_dir() and find_runs(entry)]
        runs = find_runs(path)
    except OSError as failure:
        return f'It cannot be read ({failure}).'
    if not content:
        return 'It is empty.'
    if inside:
        return (
            f'It holds the runs {", ".join(inside)} in folders of their own. Name these folders, '
            f'as {path}/*, to report on them.'
        )
    if not runs:
        return 'It holds no run of a training or test.'
    if isinstance(error, NoResultsError):
        return ' '.join(['No run in it logged an iteration or a test.', *error.notes])
    if isinstance(error, (OSError, ValueError)):
        return str(error)
    return f'It cannot be read ({type(error).__name__}: {error}).'
