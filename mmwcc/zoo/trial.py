"""One method of a library, trained for a step and asked for a prediction, dense and compressed."""

from __future__ import annotations

import gc
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope

from mmwcc.compat import get_installed_path
from mmwcc.compression import NothingCompressed, compress_model, expected_gain
from mmwcc.messages import cause
from mmwcc.presets import preset
from mmwcc.utils import build_model, quiet

from .batches import random_batch
from .methods import Method, outside, stock_config
from .shares import shares

__all__ = ['SIZES', 'Attempt', 'try_method']

SIZES = (64, 128, 320, 832)
"""Heights and widths of images to try. The first at which the dense network runs is taken."""

_LEARNING_RATE = 1e-4


@dataclass
class Attempt:
    """What came of one network, dense or compressed.

    Attributes:
        error: Why it did not run, or '' if it did.
        wrong_losses: Names of losses that are not finite.
        gradients: For every parameter that got a gradient in the step, whether any of its values
            is not zero.
        seconds: Processor time for building, the step and the prediction.
    """

    error: str = ''
    wrong_losses: list[str] = field(default_factory=list)
    gradients: dict[str, bool] = field(default_factory=dict)
    seconds: float = 0.0


def try_method(
    method: Method,
    preset_name: str = 'wcc_w8a8_k50',
    sizes: tuple[int, ...] = SIZES,
    change: Callable[[Config], None] = lambda config: None,
) -> dict[str, Any]:
    """Train a method for one step and let it predict, dense and then compressed.

    Weights and images are random. Both networks begin with the same weights and get the same batch.

    Args:
        method: The method.
        preset_name: The preset that compresses it. Defaults to 'wcc_w8a8_k50'.
        sizes: Heights and widths of images to try. Defaults to :data:`SIZES`.
        change: Changes the config before networks are built from it. Defaults to no change.

    Returns:
        Plain data: ``outside``, or ``dense`` and ``compressed`` (their ``error`` and ``seconds``),
        or ``dense`` and ``nothing``, which says what stays dense if all of it does,
        ``size``, ``shares`` (see :func:`mmwcc.zoo.shares.shares`), and the names of parameters that
        train dense, but get no gradient (``lost``) or only zeros (``zero``) compressed.
    """
    if method.config is None:
        return dict(outside='none of the configs that its metafile lists is installed')
    try:
        reason = outside(Config.fromfile(method.config))
    except ImportError as error:  # of a package that the config names
        return dict(dense=dict(error=cause(_first(error)), seconds=0.0))
    if reason:
        return dict(outside=reason)
    with quiet(), _at_home(method.library):
        for size in sizes:
            config = stock_config(method, size)
            change(config)
            trial = _Trial(method, config, size)
            dense = trial.attempt(None)
            if not dense.error:
                try:
                    compressed = trial.attempt(preset_name)
                except NothingCompressed as error:
                    return dict(size=size, dense=_facts(dense), nothing=str(error))
                return _result(trial, dense, compressed)
        return dict(size=size, dense=_facts(dense))


def _first(error: BaseException) -> BaseException:
    """Return the error that others were raised from; those list the folders of this machine."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _facts(attempt: Attempt) -> dict[str, Any]:
    facts = asdict(attempt)
    del facts['gradients']
    return facts


def _result(trial: _Trial, dense: Attempt, compressed: Attempt) -> dict[str, Any]:
    trained = [name for name, some in dense.gradients.items() if some]
    found = compressed.gradients
    result: dict[str, Any] = dict(size=trial.size, shares=trial.shares)
    result.update(dense=_facts(dense), compressed=_facts(compressed))
    if not compressed.error:
        result['trained'] = len(trained)
        result['lost'] = [name for name in trained if name not in found]
        result['zero'] = [name for name in trained if found.get(name) is False]
    return result


@contextmanager
def _at_home(library: str) -> Iterator[None]:
    """Work in the folder of a library's configs, which some name relative to it."""
    before = Path.cwd()
    os.chdir(Path(get_installed_path(library), '.mim'))
    try:
        with DefaultScope.overwrite_default_scope(library):
            yield
    finally:
        os.chdir(before)


class _Trial:
    """The networks of one method at one size."""

    def __init__(self, method: Method, config: Config, size: int) -> None:
        self.config, self.size = config, size
        self.shares: dict[str, Any] = {}
        self._initializes = True
        self._initial: dict[str, torch.Tensor] = {}
        self._batch = random_batch(method.library, config, size)

    def attempt(self, preset_name: str | None) -> Attempt:
        """Build a network, train it for a step, and let it predict."""
        attempt, began = Attempt(), time.process_time()
        try:
            self._run(attempt, preset_name)
        except NothingCompressed:
            raise
        except Exception as error:  # a network of any library may raise anything
            traceback.print_exc()
            attempt.error = cause(error)
        attempt.seconds = time.process_time() - began
        gc.collect()  # networks hold themselves in circles
        return attempt

    def _run(self, attempt: Attempt, preset_name: str | None) -> None:
        torch.manual_seed(0)
        model = revert_sync_batchnorm(build_model(self.config))
        report = None
        if preset_name is not None:
            report = compress_model(model, preset(preset_name).to_dict(), verbose='in training')
        self._initialize(model, is_dense=report is None)
        if report is None:
            self._initial = {name: value.clone() for name, value in model.state_dict().items()}
        else:  # some layers leave what happens to be in their memory
            model.load_state_dict(self._initial, strict=False)
        self._train(model, attempt)
        if report is not None:
            if report.gain is None:  # the first step could not count; say why
                self.shares = dict(error=_why_not_counted(model, self._batch))
            else:
                self.shares = shares(model, report)
        model.eval()
        with torch.no_grad():
            predictions = model.test_step(self._batch)
        if len(predictions) != len(self._batch['inputs']):
            raise RuntimeError(f'it predicts for {len(predictions)} images instead of 2')

    def _initialize(self, model: Any, is_dense: bool) -> None:
        """Initialize a network, unless the dense one needs weights for that, which are not there.

        Both then keep the random weights that they were built with.
        """
        if not self._initializes:
            return
        try:
            model.init_weights()
        except Exception:
            if not is_dense:
                raise
            traceback.print_exc()
            self._initializes = False

    def _train(self, model: Any, attempt: Attempt) -> None:
        model.train()
        MessageHub.get_current_instance().update_info('epoch', 0)  # some methods ask for it
        optimizer = torch.optim.SGD(model.parameters(), lr=_LEARNING_RATE)

        def note(*_: object) -> None:
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    attempt.gradients[name] = bool(parameter.grad.any())

        optimizer.register_step_pre_hook(note)
        torch.manual_seed(0)
        losses = model.train_step(self._batch, OptimWrapper(optimizer))
        attempt.wrong_losses = [
            name for name, value in losses.items() if not torch.as_tensor(value).isfinite().all()
        ]


def _why_not_counted(model: Any, batch: dict[str, list]) -> str:
    data = model.data_preprocessor(batch, False)
    try:
        expected_gain(model, inputs=dict(data, mode='loss'))
    except ValueError as error:
        return str(error)
    return 'the batch of the training step could not be counted'
