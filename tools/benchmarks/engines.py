"""What a user would deploy a network with: torch, ONNX Runtime and OpenVINO, float or in 8 bits.

Each engine loads a file, which is written once, and does so in a process of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmwcc.deployment import (
    TARGETS,
    RawOutputs,
    compile_openvino,
    export_onnx,
    exportable,
    load_graph,
    open_runner,
)
from mmwcc.inference import RecordedNetwork, record, to_integer
from mmwcc.maps import add_map_scales
from mmwcc.post_training import calibrate

__all__ = ['ENGINES', 'Engine', 'Forms', 'Trained']

Run = Callable[[Tensor], list[Tensor]]


@dataclass
class Trained:
    """One network in the forms from which engines start.

    Attributes:
        dense: The float network.
        quantized: The same weights with quantizers and scales of maps, calibrated.
        images: Normalized images (1, 3, H, W) for the calibration of other quantizers.
        scope: The library that its code needs.
    """

    dense: nn.Module
    quantized: nn.Module
    images: Sequence[Tensor]
    scope: str


@dataclass(frozen=True)
class Engine:
    """A way to run a network.

    Attributes:
        title: What tables call it.
        file: The name of the file that it loads, see :class:`Forms`.
        load: Returns what runs the network of a file on an image.
    """

    title: str
    file: str
    load: Callable[[Path], Run]


class Forms:
    """The files that engines load, each made when it is first asked for.

    Args:
        trained: The network. Files are for images of the size of its calibration images.
        folder: Where the files are written.
    """

    def __init__(self, trained: Trained, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.trained, self.folder = trained, folder

    def file(self, name: str) -> Path:
        """Return the path of a file."""
        path = self.folder / name
        if not path.exists():
            _MAKERS[name](self, path)
        return path


def _pickle(forms: Forms, path: Path, model: nn.Module) -> None:
    torch.save(dict(model=RawOutputs(model), scope=forms.trained.scope), path)


def _make_dense(forms: Forms, path: Path) -> None:
    _pickle(forms, path, forms.trained.dense)


@torch.no_grad()
def _make_folded(forms: Forms, path: Path) -> None:
    # mmcv's fuse_conv_bn folds into a convolution that several levels share once for each of them.
    model = exportable(RawOutputs(forms.trained.dense), forms.trained.images[0])
    torch.save(dict(model=model, scope=forms.trained.scope), path)


def _make_quantized(forms: Forms, path: Path) -> None:
    _pickle(forms, path, forms.trained.quantized)


def _make_integer(forms: Forms, path: Path) -> None:
    model = copy.deepcopy(forms.trained.quantized)
    to_integer(model, verbose=False)
    _pickle(forms, path, model)


def _make_dense_onnx(forms: Forms, path: Path) -> None:
    size = forms.trained.images[0].shape[2:]
    export_onnx(forms.trained.dense, path, tuple(size), repeats=1)


def _make_export(forms: Forms, path: Path) -> None:
    size = tuple(forms.trained.images[0].shape[2:])
    target = path.stem.removeprefix('export_')
    model = forms.trained.quantized
    if TARGETS[target].round_sums:
        model = _with_rounded_sums(model, forms.trained.images)
    export_onnx(model, path, size, repeats=1, target=target)


def _with_rounded_sums(model: nn.Module, images: Sequence[Tensor]) -> nn.Module:
    """Return a copy with the scales of maps that ONNX Runtime wants."""
    model = copy.deepcopy(model)
    model.map_scales.leave(model)
    add_map_scales(model, tuple(images[0].shape[2:]), round_sums=True)
    calibrate(model, images, forward=lambda net, x: net(x, mode='tensor'), again=False)
    return model.eval()


def _make_onnxruntime(forms: Forms, path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source = forms.file('dense.onnx')

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(forms.trained.images)

        def get_next(self):
            image = next(self.images, None)
            return None if image is None else {'image': image.numpy()}

    ready = forms.folder / 'dense_ready.onnx'
    quant_pre_process(source, ready, skip_symbolic_shape=True)  # it cannot infer all operators
    quantize_static(
        ready,
        path,
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def _make_nncf(forms: Forms, path: Path) -> None:
    import nncf
    import openvino

    model = openvino.Core().read_model(forms.file('dense.onnx'))
    images = [image.numpy() for image in forms.trained.images]
    openvino.save_model(nncf.quantize(model, nncf.Dataset(images)), path)


_MAKERS: dict[str, Callable[[Forms, Path], None]] = {
    'dense.pt': _make_dense,
    'folded.pt': _make_folded,
    'quantized.pt': _make_quantized,
    'integer.pt': _make_integer,
    'dense.onnx': _make_dense_onnx,
    'export_onnxruntime.onnx': _make_export,
    'export_openvino.onnx': _make_export,
    'onnxruntime.onnx': _make_onnxruntime,
    'nncf.xml': _make_nncf,
}


def _tensors(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _network(file: Path) -> nn.Module:
    saved = torch.load(file, weights_only=False)
    init_default_scope(saved['scope'])
    return saved['model'].eval().to(memory_format=torch.channels_last)


def _called(network: Callable[[Tensor], Any]) -> Run:
    def run(image: Tensor) -> list[Tensor]:
        with torch.inference_mode():
            return _tensors(network(image.contiguous(memory_format=torch.channels_last)))

    return run


def _eager(file: Path) -> Run:
    return _called(_network(file))


def _recorded(file: Path) -> Run:
    network = _network(file)
    recordings: dict[torch.Size, RecordedNetwork] = {}

    def recorded(image: Tensor) -> Any:
        if image.shape not in recordings:
            recordings[image.shape] = record(network, image)
        return recordings[image.shape](image)

    return _called(recorded)


def _compiled(file: Path) -> Run:
    import torch._inductor.config

    torch._inductor.config.freezing = True
    return _called(torch.compile(_network(file)))


def _onnxruntime(file: Path) -> Run:
    run = open_runner(load_graph(file))
    return lambda image: [torch.from_numpy(y) for y in run(image.numpy())]


def _openvino(file: Path, precision: str = 'f32') -> Run:
    model = compile_openvino(file, precision)

    def run(image: Tensor) -> list[Tensor]:
        return [torch.from_numpy(np.array(y)) for y in model([image.numpy()]).values()]

    return run


def _openvino_bf16(file: Path) -> Run:
    return _openvino(file, 'bf16')


ENGINES = {
    'torch': Engine('torch float32', 'dense.pt', _eager),
    'folded': Engine('torch float32, BatchNorm folded', 'folded.pt', _eager),
    'compiled': Engine('torch.compile, frozen', 'folded.pt', _compiled),
    'simulated': Engine('mmwcc, simulated in float32', 'quantized.pt', _eager),
    'mmwcc': Engine('mmwcc to_integer', 'integer.pt', _eager),
    'mmwcc-recorded': Engine('mmwcc to_integer, recorded', 'integer.pt', _recorded),
    'ort': Engine('ONNX Runtime float32', 'dense.onnx', _onnxruntime),
    'ort-int8': Engine('ONNX Runtime, its own int8', 'onnxruntime.onnx', _onnxruntime),
    'ort-export': Engine('ONNX Runtime, our export', 'export_onnxruntime.onnx', _onnxruntime),
    'ov': Engine('OpenVINO float32', 'dense.onnx', _openvino),
    'ov-bf16': Engine('OpenVINO bf16', 'dense.onnx', _openvino_bf16),
    'ov-nncf': Engine('OpenVINO, NNCF int8', 'nncf.xml', _openvino),
    'ov-export': Engine('OpenVINO, our export', 'export_openvino.onnx', _openvino),
}
