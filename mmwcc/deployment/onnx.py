"""Export to ONNX with either exporter of torch, and verify the result."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mmwcc.progress import Stages
from mmwcc.requirements import require

from .operators import torchscript_symbols, translations
from .parity import compare
from .prepare import RawOutputs, exportable
from .report import ExportReport
from .runtime import ExportError, integer_convolutions, load_graph
from .structure import check_graph, expected_operators
from .targets import Target, target_of
from .tensorrt import check_tensorrt
from .thresholds import calibrate_thresholds, kept_ratios
from .tidy import tidy

__all__ = ['EXPORTERS', 'SELECTIONS', 'export_onnx']

EXPORTERS = ('auto', 'dynamo', 'torchscript')
"""Exporters of torch; 'auto' takes dynamo's, and the other one where that fails."""

SELECTIONS = ('topk', 'threshold')
"""How positions are kept: the k largest of each image, or all above a calibrated threshold."""

_OLDEST = dict(dynamo=18, torchscript=13)


def export_onnx(
    model: nn.Module,
    path: str | Path,
    shape: tuple[int, int] = (512, 1024),
    *,
    channels: int = 3,
    dynamic: bool = False,
    exporter: str = 'auto',
    opset: int = 18,
    selection: str = 'topk',
    calibration: Sequence[Tensor] = (),
    qdq: bool = True,
    argmax: bool = False,
    repeats: int = 5,
    verbose: bool = False,
    target: str = 'onnxruntime',
) -> ExportReport:
    """Write a dense, quantized or wavelet compressed model as ONNX, and verify the file.

    The file is kept only if it passes two checks. First, it must select, apply thresholds and
    quantize in every layer that does so, with a k that follows the size of the input. Second, ONNX
    Runtime must return what the model returns: at ``shape`` and, with ``dynamic``, also at a second
    size with odd height and width.

    Args:
        model: A trained model in any mode. It is not changed.
        path: File to write.
        shape: Height and width of the images in pixels. Defaults to (512, 1024).
        channels: Channels of the images. Defaults to 3.
        dynamic: Whether height and width stay open. Defaults to False.
        exporter: One of :data:`EXPORTERS`. Defaults to 'auto'.
        opset: Version of ONNX's operators, at least 18, or 13 for 'torchscript'. Defaults to 18.
        selection: One of :data:`SELECTIONS`. Defaults to 'topk'.
        calibration: Normalized images (B, channels, H, W) for ``selection='threshold'``. Defaults
            to none.
        qdq: Whether to write quantizers of 8 bits or fewer as QuantizeLinear and DequantizeLinear.
            Defaults to True.
        argmax: Whether a segmentor returns the class of each pixel. Defaults to False.
        repeats: Number of runs. Their median is the latency. Defaults to 5.
        verbose: Whether to say which step begins. Defaults to False.
        target: The runtime that will run the graph, one of :data:`TARGETS`. OpenVINO verifies
            graphs for OpenVINO, ONNX Runtime all others. Graphs for TensorRT must also follow the
            rules of its documentation, see :func:`check_tensorrt`. Defaults to 'onnxruntime'.

    Returns:
        A report of what was written and how it compares with the model.

    Raises:
        ModuleNotFoundError: If onnx, onnxruntime, onnxscript or the runtime is missing.
        ValueError: If an argument is outside its range, the model has no raw outputs, or has fused
            or integer layers.
        RuntimeError: If a quantizer has not learned its clip, or a map its scale.
        ExportError: If no exporter can write the model, the file does not match the model, or
            TensorRT would refuse it.
    """
    runtime = target_of(target)
    for package in dict.fromkeys(('onnx', 'onnxruntime', 'onnxscript', runtime.package)):
        require(package, 'export_onnx')
    wish = _Wish(shape, dynamic, exporter, opset, selection, calibration, qdq, repeats, runtime)
    wish.check()
    x = torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(0))
    network = RawOutputs(model, argmax)
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        return _export(network, Path(path), x, wish, verbose)
    finally:
        for module, training in modes.items():
            module.training = training


@dataclass(frozen=True)
class _Wish:
    """What the caller wants of an export; attributes as in :func:`export_onnx`."""

    shape: tuple[int, int]
    dynamic: bool
    exporter: str
    opset: int
    selection: str
    calibration: Sequence[Tensor]
    qdq: bool
    repeats: int
    target: Target

    def check(self) -> None:
        """Raise an error if a value is outside its range."""
        if len(self.shape) != 2 or any(side < 1 for side in self.shape):
            raise ValueError(
                'export_onnx: shape must be height and width of at least 1 pixel, got '
                f'{tuple(self.shape)}. Use (512, 1024).'
            )
        for name, value, allowed in (
            ('exporter', self.exporter, EXPORTERS),
            ('selection', self.selection, SELECTIONS),
        ):
            if value not in allowed:
                raise ValueError(
                    f'export_onnx: {name} must be one of {", ".join(allowed)}, got {value!r}. Use '
                    f'{allowed[0]!r}.'
                )
        oldest = _OLDEST.get(self.exporter, _OLDEST['dynamo'])
        if self.opset < oldest:
            raise ValueError(
                f'export_onnx: opset must be at least {oldest} with exporter={self.exporter!r}, '
                f"got {self.opset}. Use 18, or exporter='torchscript' for 13 to 17."
            )
        if self.selection == 'threshold' and not len(self.calibration):
            raise ValueError(
                "export_onnx: calibration must hold images for selection='threshold', got none. "
                'Give some tens of training images.'
            )


@torch.no_grad()
def _export(network: RawOutputs, path: Path, x: Tensor, wish: _Wish, verbose: bool) -> ExportReport:
    by_threshold = wish.selection == 'threshold'
    stages = Stages('export_onnx', 3 + by_threshold + wish.dynamic, verbose)
    stages.begin('fold BatchNorm')
    prepared = exportable(network, x, qdq=wish.qdq, dynamic=wish.dynamic, target=wish.target.name)
    thresholds = {}
    if by_threshold:
        stages.begin(f'find thresholds on {len(wish.calibration)} images')
        thresholds = calibrate_thresholds(prepared, wish.calibration)
    stages.begin(f'write the graph, exporter {wish.exporter}')
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        written = Path(folder) / path.name
        used, note = _write(prepared, written, x, network.names(x), wish)
        graph = _tidied(written, wish)
        inputs = [x]
        if wish.dynamic:
            inputs.append(torch.randn(*x.shape[:2], *_second_size(*wish.shape)))
        expected = [expected_operators(network, image, wish.qdq, thresholds) for image in inputs]
        check_graph(graph, inputs, expected)
        reference = prepared if thresholds else network
        parities = []
        for image in inputs:
            stages.begin(f'compare with the model at {image.shape[2]}x{image.shape[3]}')
            parities.append(compare(graph, reference, image, network, wish.repeats, wish.target))
        written.replace(path)
    return ExportReport(
        path,
        used,
        wish.opset,
        note,
        wish.dynamic,
        path.stat().st_size,
        expected[0],
        parities,
        kept_ratios(prepared, wish.calibration) if thresholds else {},
        wish.target.runner,
        integer_convolutions(graph, wish.target),
        network.left_out,
    )


def _tidied(path: Path, wish: _Wish):
    """Rewrite a file for its runtime, and return the graph."""
    import onnx

    graph = load_graph(path)
    target = wish.target
    tidy(graph, target.integer_sums, target.early_concat, target.own_operators)
    onnx.save(graph, path)
    graph = load_graph(path)
    if wish.target.name == 'tensorrt':
        check_tensorrt(graph)
    return graph


def _second_size(height: int, width: int) -> tuple[int, int]:
    """Return another size with odd sides, so that no transform depth divides it."""
    return (height * 3 // 4) | 1, (width * 5 // 8) | 1


def _write(
    network: nn.Module,
    path: Path,
    x: Tensor,
    names: list[str],
    wish: _Wish,
) -> tuple[str, str]:
    """Write the file with the first exporter that succeeds.

    Return its name, and why earlier exporters failed.
    """
    note = ''
    for name in ('dynamo', 'torchscript') if wish.exporter == 'auto' else (wish.exporter,):
        try:
            with _quiet():
                _WRITERS[name](network, path, x, names, wish.dynamic, wish.opset)
            return name, note
        except Exception as error:  # an exporter may raise anything
            reason = next(
                (line for line in str(error).splitlines()[::-1] if 'Error' in line),
                str(error)[:200],
            )
            note = f'{note}{name}: {type(error).__name__}: {reason.strip()} '
            last = error
    raise ExportError(
        f'export_onnx: the exporter must know every operator of the model. {note.strip()}'
    ) from last


def _write_dynamo(network, path, x, names, dynamic, opset) -> None:
    open_size = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(
        network,
        (x,),
        dynamo=True,
        opset_version=opset,
        input_names=['image'],
        output_names=names,
        dynamic_shapes=(open_size,) if dynamic else None,
        custom_translation_table=translations(),
        verbose=False,
    )
    assert program is not None, 'with dynamo=True there is a program'
    for node in program.model.graph:
        node.metadata_props.clear()  # remove source locations
    program.save(path)


def _write_torchscript(network, path, x, names, dynamic, opset) -> None:
    axes = {'image': {2: 'height', 3: 'width'}} if dynamic else None
    with torchscript_symbols(opset):
        torch.onnx.export(
            network,
            (x,),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=['image'],
            output_names=names,
            dynamic_axes=axes,
        )


_WRITERS = dict(dynamo=_write_dynamo, torchscript=_write_torchscript)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide messages of exporters: deprecations, traced sizes, packages that they could use."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
