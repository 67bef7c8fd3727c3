"""Measure latency, throughput and memory of a model in training, and of its dense twin."""

from __future__ import annotations

import copy
import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import IterBasedTrainLoop
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmwcc.diagnostics import dense_twin, device_name, measure_latency, peak_memory
from mmwcc.model_tree import compressed_layers, unwrapped
from mmwcc.progress import Progress, track
from mmwcc.quantizers import UniformQuantizer
from mmwcc.registry import HOOKS
from mmwcc.version import __version__

from .random_state_hook import get_random_state, set_random_state

__all__ = ['BenchmarkHook']

_COLUMNS = dict(
    latency_ms='latency ms', p95_ms='p95 ms', throughput='images/s', peak_memory_mib='memory MiB'
)


@HOOKS.register_module()
class BenchmarkHook(Hook):
    """Measure inference of the current model, and of the same model without compression.

    The hook measures the median and the 95th percentile of latency, the throughput in images per
    second, and the peak memory of all tensors except the weights and the input
    (:func:`mmwcc.diagnostics.latency.peak_memory`). Only the network runs (``mode='tensor'``), on
    random input, without pre- and postprocessing, in eager mode and without autograd.

    The measurement uses a copy of the model in evaluation mode. For the dense twin, the compressed
    layers of the copy become ``nn.Conv2d`` again; convolutions that were made separable stay
    separable. Modes, buffers, quantizers and gradients of the model in training are not touched,
    and the states of the random generators are restored afterwards. Quantizers of the copy that
    have not learned a clip take one from the random input; otherwise the measured time would
    include their calibration.

    The results go to three places: to the log as a table, to the visualizer as
    ``benchmark/<quantity>/<shape>`` and ``benchmark/dense_<quantity>/<shape>``, and to a JSON file
    in the work directory. A resumed run appends to that file.

    Args:
        shapes: Shapes of the input, each (H, W) for one image of three channels, (C, H, W) or (B,
            C, H, W).
        start: Whether to measure before the first iteration. Defaults to True.
        interval: Iterations or epochs between two measurements. Defaults to None: no measurements
            during training.
        end: Whether to measure after the last iteration. Defaults to True.
        by_epoch: Whether ``interval`` counts epochs, which needs an epoch-based loop. Defaults to
            False.
        dense: Whether to measure the dense twin as well. Defaults to True.
        repeats: Number of timed calls, alternating between the model and the twin. An untimed call
            precedes each. Defaults to 20.
        warmup: Number of untimed calls at the beginning. Defaults to 3.
        amp_dtype: 'float16' or 'bfloat16' to run under autocast. Defaults to None, float32.
        channels_last: Whether the input is in that memory format. Defaults to False.
        out_file: Name of the file in the work directory. Defaults to 'benchmark.json'.

    Raises:
        TypeError: If ``by_epoch`` is not a bool.
        ValueError: If a shape, ``interval``, ``repeats``, ``warmup`` or ``amp_dtype`` is not as
            described above, or there is nothing to measure.
        RuntimeError: At the start of training, if ``by_epoch=True`` is used with an iteration-based
            loop, or the model is on a device that is neither a CPU nor a CUDA device. The model
            always runs each shape once at that point, so that a shape that does not fit fails
            before any work is lost.

    Note:
        Rank 0 measures while the others wait. The CUDA memory that mmengine logs includes these
        runs where they take more than training, because its statistics are not reset. Other load on
        the machine affects the times.

    Example:
        >>> benchmark = dict(type='mmwcc.BenchmarkHook', shapes=[(512, 1024)], interval=8000)
        >>> default_hooks = dict(benchmark=benchmark)
    """

    # After hooks that calibrate, schedule, or remove their own forward hooks
    # (CompressionStatsHook).
    priority = 'LOW'

    def __init__(
        self,
        shapes: Sequence[Sequence[int]],
        start: bool = True,
        interval: int | None = None,
        end: bool = True,
        by_epoch: bool = False,
        dense: bool = True,
        repeats: int = 20,
        warmup: int = 3,
        amp_dtype: str | None = None,
        channels_last: bool = False,
        out_file: str = 'benchmark.json',
    ) -> None:
        if not isinstance(by_epoch, bool):
            raise TypeError(
                f'BenchmarkHook: by_epoch must be True or False, got {by_epoch!r}. Use False to '
                'count iterations.'
            )
        for name, value, least in (
            ('interval', 1 if interval is None else interval, 1),
            ('repeats', repeats, 1),
            ('warmup', warmup, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(
                    f'BenchmarkHook: {name} must be an integer of at least {least}, got {value!r}. '
                    f'Leave {name} out for its default.'
                )
        if amp_dtype not in (None, 'float16', 'bfloat16'):
            raise ValueError(
                "BenchmarkHook: amp_dtype must be 'float16', 'bfloat16' or None, got "
                f'{amp_dtype!r}. Use None for float32.'
            )
        if not (start or end or interval):
            raise ValueError(
                'BenchmarkHook: start, interval or end must be given, got none of them. Leave the '
                'hook out to measure nothing.'
            )
        self.shapes = _checked_shapes(shapes)
        self.start, self.end = start, end
        self.interval, self.by_epoch = interval, by_epoch
        self.dense, self.repeats, self.warmup = dense, repeats, warmup
        self.amp_dtype, self.channels_last, self.out_file = amp_dtype, channels_last, out_file
        self._rows: list[dict[str, Any]] = []
        self._measured_at: int | None = None

    def before_train(self, runner) -> None:
        """Check that every shape runs, and measure if ``start`` is set."""
        if self.by_epoch and isinstance(runner.train_loop, IterBasedTrainLoop):
            raise RuntimeError(
                'BenchmarkHook: by_epoch must be False with an iteration-based training loop, got '
                'True. Such a loop stays in epoch 0; give interval in iterations.'
            )
        device = _device(runner.model)
        if device.type not in ('cpu', 'cuda'):
            raise RuntimeError(
                f'BenchmarkHook: the model must be on a CPU or a CUDA device, got {device}. Leave '
                'the hook out there.'
            )
        self._rows = self._earlier_rows(runner)
        if self.start:
            self._benchmark(runner, runner.iter)
        elif is_main_process():
            shapes = track(self.shapes, 'BenchmarkHook: check', 'shapes', say=runner.logger.info)
            with _private_copy(runner.model) as model:
                for shape in shapes:
                    self._call(model, self._input(shape, device))()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Measure every ``interval`` iterations."""
        if self.interval and not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._benchmark(runner, runner.iter + 1)

    def after_train_epoch(self, runner) -> None:
        """Measure every ``interval`` epochs."""
        if self.interval and self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._benchmark(runner, runner.iter)

    def after_train(self, runner) -> None:
        """Measure the final model."""
        if self.end and self._measured_at != runner.iter:
            self._benchmark(runner, runner.iter)

    def _benchmark(self, runner, iteration: int) -> None:
        """Measure on rank 0 while the others wait, and report the results."""
        if is_main_process():
            device = _device(runner.model)
            progress = Progress(
                'BenchmarkHook', len(self.shapes) * self.repeats, 'repeats', runner.logger.info
            )
            with _private_copy(runner.model) as model:
                measured = [
                    row
                    for shape in self.shapes
                    for row in self._measure(model, shape, device, progress.step)
                ]
            progress.end()
            rows = [dict(iter=iteration, **row) for row in measured]
            self._rows += rows
            about = self._environment(device)
            runner.logger.info(
                f'benchmark at iter {iteration}: {about["device"]}, {about["threads"]} threads, '
                f'{about["dtype"]}\n{_table(rows)}'
            )
            runner.visualizer.add_scalars(_scalars(rows), step=iteration)
            content = json.dumps(dict(environment=about, rows=self._rows), indent=1)
            Path(runner.work_dir, self.out_file).write_text(content + '\n', encoding='utf-8')
        self._measured_at = iteration
        barrier()

    def _measure(
        self,
        model: nn.Module,
        shape: tuple[int, ...],
        device: torch.device,
        on_repeat: Callable[[], None],
    ) -> list[dict[str, Any]]:
        x = self._input(shape, device)
        contenders = dict(model=model)
        if self.dense and compressed_layers(model):
            contenders['dense'] = dense_twin(model)
        calls = {name: self._call(contender, x) for name, contender in contenders.items()}
        calls['model']()  # calibrates quantizers without a clip, before anything is timed
        memory = {name: peak_memory(call) for name, call in calls.items()}
        latency = measure_latency(
            calls, device, repeats=self.repeats, warmup=self.warmup, on_repeat=on_repeat
        )
        return [
            dict(
                contender=name,
                shape=list(shape),
                latency_ms=latency[name].median,
                p95_ms=latency[name].p95,
                throughput=1e3 * shape[0] / latency[name].median,
                peak_memory_mib=memory[name] / 2**20,
            )
            for name in calls
        ]

    def _input(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x

    def _call(self, model: nn.Module, x: Tensor) -> Callable[[], Any]:
        arguments = [x, _data_samples(x)] if isinstance(model, BaseModel) else [x]

        def run() -> Any:
            dtype = None if self.amp_dtype is None else getattr(torch, self.amp_dtype)
            with torch.no_grad(), torch.autocast(x.device.type, dtype, enabled=dtype is not None):
                return model(*arguments)

        return run

    def _environment(self, device: torch.device) -> dict[str, Any]:
        """Describe the environment that the numbers depend on."""
        return dict(
            device=device_name(device),
            type=device.type,
            threads=torch.get_num_threads(),
            dtype=self.amp_dtype or 'float32',
            channels_last=self.channels_last,
            repeats=self.repeats,
            kernels=os.environ.get('MMWCC_KERNELS', 'default'),
            mmwcc=__version__,
            mmengine=mmengine.__version__,
            torch=torch.__version__,
            cuda=torch.version.cuda,
            python=platform.python_version(),
        )

    def _earlier_rows(self, runner) -> list[dict[str, Any]]:
        """Return what an interrupted run measured before the point from which it is now resumed."""
        path = Path(runner.work_dir, self.out_file)
        if runner.iter == 0 or not path.exists():
            return []
        return [
            row
            for row in json.loads(path.read_text(encoding='utf-8'))['rows']
            if row['iter'] < runner.iter
        ]


def _checked_shapes(shapes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Check the shapes and extend each to four sizes."""
    if not isinstance(shapes, (list, tuple)) or not shapes:
        raise ValueError(
            f'BenchmarkHook: shapes must be a list of shapes, got {shapes!r}. Did you mean '
            'shapes=[(512, 1024)]?'
        )
    for shape in shapes:
        if (
            not isinstance(shape, (list, tuple))
            or not 2 <= len(shape) <= 4
            or not all(type(size) is int and size > 0 for size in shape)
        ):
            raise ValueError(
                'BenchmarkHook: a shape must be (H, W), (C, H, W) or (B, C, H, W) in positive '
                f'integers, got {shape!r} in shapes. Did you mean shapes=[(512, 1024)]?'
            )
    return [(1, 3)[: 4 - len(shape)] + tuple(shape) for shape in shapes]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


@contextmanager
def _private_copy(model: nn.Module) -> Iterator[nn.Module]:
    """Yield a copy of a model for inference on one rank, and restore random states afterwards."""
    state = get_random_state()
    model = copy.deepcopy(unwrapped(model)).eval()
    for module in model.modules():
        if isinstance(module, UniformQuantizer) and not module.is_settled:
            module.train()  # quantizers calibrate in training mode only
            module.alone = True  # do not wait for other ranks, which do not run the copy
    try:
        yield model
    finally:
        set_random_state(state)


def _data_samples(x: Tensor) -> list[BaseDataElement]:
    """Return the image sizes that two-stage detectors need between their stages."""
    size = tuple(x.shape[2:])
    about = dict(
        img_shape=size,
        ori_shape=size,
        pad_shape=size,
        batch_input_shape=size,
        scale_factor=(1.0, 1.0),
    )
    return [BaseDataElement(metainfo=about) for _ in x]


def _name(shape: Sequence[int]) -> str:
    return 'x'.join(map(str, shape))


def _table(rows: list[dict[str, Any]]) -> str:
    cells = [['input', 'network', *_COLUMNS.values()]]
    cells += [
        [_name(row['shape']), row['contender'], *(f'{row[column]:.4g}' for column in _COLUMNS)]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return '\n'.join(
        '  '.join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )


def _scalars(rows: list[dict[str, Any]]) -> dict[str, float]:
    prefixes = dict(model='', dense='dense_')
    return {
        f'benchmark/{prefixes[row["contender"]]}{column}/{_name(row["shape"])}': row[column]
        for row in rows
        for column in _COLUMNS
    }
