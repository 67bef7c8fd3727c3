"""Exports of a network whose maps have scales: every quantized convolution runs in integers."""

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy_networks import segmentor

from mmwcc.compression import compress_model
from mmwcc.deployment import ExportError, export_onnx
from mmwcc.deployment.graph import Graph
from mmwcc.deployment.runtime import integer_convolutions, load_graph, open_runner
from mmwcc.deployment.targets import TARGETS
from mmwcc.maps import add_map_scales
from mmwcc.post_training import calibrate
from mmwcc.presets import preset

LAYERS, DENSE = 15, 2  # the stem and the last layer stay dense


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return segmentor([torch.randn(1, 3, 64, 96) for _ in range(4)])


def export(model, tmp_path, target, **kwargs):
    settings = dict(exporter='torchscript', repeats=1) | kwargs
    report = export_onnx(model, tmp_path / 'net.onnx', (64, 96), target=target, **settings)
    return report, load_graph(report.path)


def same_classes(graph, model, target, size):
    x = torch.randn(1, 3, *size)
    logits = open_runner(graph, TARGETS[target])(x.numpy())[0]
    with torch.no_grad():
        return (torch.from_numpy(logits).argmax(1) == model(x).argmax(1)).double().mean().item()


@pytest.mark.parametrize(
    ('target', 'exporter'),
    [('onnxruntime', 'torchscript'), ('openvino', 'torchscript'), ('onnxruntime', 'dynamo')],
)
def test_every_quantized_convolution_is_computed_in_integers(target, exporter, model, tmp_path):
    pytest.importorskip(target)
    report, graph = export(model, tmp_path, target, exporter=exporter)
    assert report.integer_convolutions == (LAYERS, LAYERS + DENSE)
    assert f'computes {LAYERS} of {LAYERS + DENSE} convolutions in integers' in str(report)
    assert same_classes(graph, model, target, (64, 96)) >= 0.995
    kinds = {node.op_type for node in graph.graph.node}
    assert not kinds & {'BatchNormalization', 'Round', 'Clip'}


@pytest.mark.parametrize('target', ['onnxruntime', 'openvino'])
def test_open_sizes(target, model, tmp_path):
    pytest.importorskip(target)
    report, graph = export(model, tmp_path, target, dynamic=True)
    assert report.integer_convolutions[0] == LAYERS
    assert same_classes(graph, model, target, (97, 65)) >= 0.995


def test_sums_and_concatenations_are_computed_on_bytes(model, tmp_path):
    _, graph = export(model, tmp_path, 'onnxruntime')
    nodes = Graph(graph)
    for kind, inputs in dict(Concat=(0, 1), Resize=(0,), Add=(0, 1)).items():
        found = [node for node in nodes.of_type(kind) if nodes.constant(node, 1) is None]
        found = [node for node in found if nodes.maker(node.input[0]).op_type != 'Shape']
        assert found
        for node in found:
            makers = {nodes.maker(node.input[i]).op_type for i in inputs}
            readers = {reader.op_type for reader in nodes.readers(node)}
            assert (makers, readers) == ({'DequantizeLinear'}, {'QuantizeLinear'}), node.name


def test_grids_without_their_lowest_level_keep_a_clip(tmp_path, images):
    pytest.importorskip('openvino')
    symmetric = segmentor(images, act_quant=dict(symmetric=True))
    report, graph = export(symmetric, tmp_path, 'openvino')
    assert report.integer_convolutions[0] == LAYERS
    clips = [node for node in graph.graph.node if node.op_type == 'Clip']
    assert clips  # before signed maps; behind ReLU there is none
    assert integer_convolutions(graph, TARGETS['onnxruntime'])[0] < LAYERS - 1


def test_tensorrt_gets_int8_around_zero(tmp_path, images):
    signed = segmentor(images, act_quant=dict(symmetric=False, signed=True), signed=True)
    report, graph = export(signed, tmp_path, 'tensorrt')
    points = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in [
            *graph.graph.initializer,
            *(node.attribute[0].t for node in graph.graph.node if node.op_type == 'Constant'),
        ]
        if tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    ]
    assert {point.dtype for point in points} == {np.dtype('int8')}
    assert not any(point.any() for point in points if point.ndim == 0)
    assert report.runtime == 'ONNX Runtime'  # which verifies it


def test_tensorrt_refuses_unsigned_maps(model, tmp_path):
    with pytest.raises(
        ExportError, match='must be int8 with zero point 0, got uint8 at .*signed=T'
    ):
        export(model, tmp_path, 'tensorrt')
    assert not list(tmp_path.iterdir())


class Shared(nn.Module):
    """Two levels of a pyramid and one convolution for both, under two names."""

    def __init__(self):
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        conv = nn.Conv2d(8, 8, 3, padding=1)
        self.convs = nn.ModuleList([conv, conv])

    def forward(self, x):
        fine = self.stem(x).relu()
        levels = [fine, F.max_pool2d(fine, 2)]
        return [
            self.last(conv(level).relu() + level)
            for conv, level in zip(self.convs, levels, strict=True)
        ]


class Weighted(nn.Module):
    """A weighted sum of two levels of a pyramid, as BiFPN has them."""

    def __init__(self):
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1)
        self.last, self.weights = nn.Conv2d(8, 4, 1), nn.Parameter(torch.tensor([0.7, 0.3]))

    def forward(self, x):
        fine = self.stem(x).relu()
        maps = fine, F.interpolate(self.deep(fine), scale_factor=2)
        return self.last(sum(w * y for w, y in zip(self.weights, maps, strict=True)))


@pytest.mark.parametrize('network', [Shared, Weighted])
def test_exporters_write_the_same_quantizers(network, tmp_path):
    torch.manual_seed(0)
    model, batches = network().eval(), [torch.randn(1, 3, 16, 16) for _ in range(2)]
    compress_model(model, preset('quant_channel_w8a8', keep_dense=[]), verbose=False)
    calibrate(model, batches)
    add_map_scales(model, (16, 16))
    calibrate(model, batches, again=False)
    counts = []
    for exporter in ('torchscript', 'dynamo'):
        path = tmp_path / f'{exporter}.onnx'
        export_onnx(model.eval(), path, (16, 16), exporter=exporter, repeats=1)
        counts.append([node.op_type for node in load_graph(path).graph.node])
    assert counts[0].count('QuantizeLinear') == counts[1].count('QuantizeLinear') > 4


def test_without_qdq_maps_are_rounded_too(model, tmp_path):
    report, graph = export(model, tmp_path, 'onnxruntime', qdq=False)
    assert report.integer_convolutions[0] == report.expected.quantized == 0
    assert report.expected.rounded > LAYERS
    assert same_classes(graph, model, 'onnxruntime', (64, 96)) >= 0.995


def test_maps_without_scales_are_named(tmp_path, images):
    model = segmentor(images)
    scales = model.map_scales
    scales.of(scales.plan.own[0]).reset_parameters()
    scales.of(scales.plan.own[0])._remember()
    with pytest.raises(RuntimeError, match='every map must have learned its scale, got maps that'):
        export(model, tmp_path, 'onnxruntime')


def test_a_bias_beyond_int32_is_kept(tmp_path, images):
    """A channel whose weights are next to nothing has steps too small for its bias."""
    model = segmentor(images)
    with torch.no_grad():
        model.small[0].weight[0] *= 1e-12
        model.small[0].weight_quant.clip_alpha[0] *= 1e-12
        model.small[1].bias[0] = 0.7
    report, graph = export(model, tmp_path, 'onnxruntime')
    assert same_classes(graph, model, 'onnxruntime', (64, 96)) >= 0.995
    biases = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in graph.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT32
    ]
    assert max(np.abs(bias).max() for bias in biases) <= 1.001 * 2**30


def test_unknown_targets_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match='target must be one of onnxruntime, openvino, tensorrt, '):
        export(model, tmp_path, 'ncnn')
