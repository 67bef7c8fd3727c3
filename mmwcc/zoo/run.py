"""Trials of many methods, each in a process of its own, with results that are kept."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import mmwcc

from .methods import Method
from .page import summary
from .trial import try_method

__all__ = ['ZooRun', 'versions']

_DISTRIBUTIONS = ('torch', 'mmengine', 'mmcv', 'mmsegmentation', 'mmdet')
_PATIENCE = 30  # seconds to wait for each second of processor time
_PRELOADED = ['mmwcc.zoo.trial', 'mmseg.models', 'mmdet.models', 'mmdet.structures']


def versions() -> dict[str, str]:
    """Return the versions that a trial depends on."""
    found = {'mmwcc': mmwcc.__version__}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass
class ZooRun:
    """Try methods one after the other, and keep what came of them in a JSON file.

    A trial runs in a process of its own, so that a crash, a lack of memory or an endless loop ends
    that trial alone. Methods that are in the file already are not tried again.

    Args:
        file: The JSON file. It is written after every trial. The outputs of the trials go to a
            folder beside it.
        preset: The preset that compresses the methods.
        seconds: Limit for the processor time of a method. A method that waits ends after
            thirty times as long.
        gigabytes: Memory limit for a method.
        say: Receives a line for each trial. Defaults to printing it.
        trial: What is called with a method and the name of the preset. Defaults to
            :func:`mmwcc.zoo.try_method`.

    Attributes:
        results: What :func:`mmwcc.zoo.try_method` returned, by the key of the method, or ``broken``
            with the reason why it could not return.

    Raises:
        ValueError: If the file holds results of another preset or of other versions.
    """

    file: Path
    preset: str = 'wcc_w8a8_k50'
    seconds: float = 300
    gigabytes: float = 6
    say: Callable[[str], None] = lambda text: print(text, flush=True)
    trial: Callable[[Method, str], dict[str, Any]] = try_method
    results: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not self.file.is_file():
            return
        content = json.loads(self.file.read_text(encoding='utf-8'))
        for key, ours in (('preset', self.preset), ('versions', versions())):
            if content[key] != ours:
                raise ValueError(
                    f'ZooRun: {self.file} must hold results of the same {key}, got '
                    f'{content[key]} instead of {ours}. Choose another file, or delete it.'
                )
        self.results = content['results']

    def run(self, methods: Sequence[Method], jobs: int = 1) -> None:
        """Try the methods that have no result yet.

        Args:
            methods: The methods.
            jobs: Number of trials at a time. Defaults to 1.
        """
        left = [method for method in methods if method.key not in self.results]
        context = multiprocessing.get_context('forkserver')
        context.set_forkserver_preload(_PRELOADED)  # the libraries are imported once
        with ThreadPoolExecutor(jobs) as pool:
            trials = {pool.submit(self._try, context, method): method for method in left}
            for number, trial in enumerate(as_completed(trials), 1):
                method = trials[trial]
                self.results[method.key] = result = trial.result()
                self._save()
                self.say(f'[{number}/{len(left)}] {method.key}: {summary(result)}')

    def _try(self, context: Any, method: Method) -> dict[str, Any]:
        log = self.file.with_suffix('') / f'{method.library}-{method.name}.log'
        log.parent.mkdir(parents=True, exist_ok=True)
        receiver, sender = context.Pipe(duplex=False)
        limits = {
            resource.RLIMIT_CPU: int(self.seconds),
            resource.RLIMIT_DATA: int(self.gigabytes * 2**30),
        }
        arguments = (self.trial, method, self.preset, limits, log, sender)
        process = context.Process(target=_child, args=arguments)
        process.start()
        sender.close()
        try:
            result = receiver.recv() if receiver.poll(_PATIENCE * self.seconds) else None
        except EOFError:
            process.join()
            result = dict(broken=_ending(process.exitcode, self.seconds))
        if result is None:
            process.kill()
            result = dict(broken=f'it took more than {_PATIENCE * self.seconds:g} s')
        process.join()
        return result

    def _save(self) -> None:
        content = dict(preset=self.preset, versions=versions(), results=self.results)
        temporary = self.file.with_suffix('.part')
        temporary.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
        temporary.replace(self.file)


def _ending(code: int, seconds: float) -> str:
    """Return how a process ended that could not say it itself."""
    if code == -signal.SIGXCPU:
        return f'it took more than {seconds:g} s of processor time'
    return f'its process was ended by {signal.Signals(-code).name}' if code < 0 else f'exit {code}'


def _child(
    trial: Callable[[Method, str], dict[str, Any]],
    method: Method,
    preset: str,
    limits: dict[int, int],
    log: Path,
    sender: Any,
) -> None:
    """Try a method in a process with a log and limits, and send the result."""
    for kind, limit in limits.items():
        resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))
    with log.open('w', encoding='utf-8') as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
        try:
            result = trial(method, preset)
        except BaseException as error:
            traceback.print_exc()
            result = dict(broken=f'{type(error).__name__}: {error}')
        sender.send(dict(result, seconds=round(time.process_time(), 1)))
        sender.close()
