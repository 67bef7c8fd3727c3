"""Exports of a small network with both exporters, and exports that lost something."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from toy_networks import build, quantizers

from mmwcc.compression import compress_model
from mmwcc.deployment import ExportError, ExportReport, export_onnx
from mmwcc.deployment import onnx as exporting
from mmwcc.deployment.layers import ExportableWaveletConv2d
from mmwcc.deployment.runtime import load_graph, run_graph
from mmwcc.inference import to_integer

ODD_SIZES = [(65, 97), (49, 61), (31, 40), (64, 96), (17, 18)]


def export(
    model, tmp_path, exporter='torchscript', **kwargs
) -> tuple[ExportReport, onnx.ModelProto]:
    report = export_onnx(
        model, tmp_path / 'net.onnx', (65, 97), exporter=exporter, repeats=1, **kwargs
    )
    return report, load_graph(report.path)


def types(graph) -> list[str]:
    return [node.op_type for node in graph.graph.node]


@pytest.mark.parametrize(
    ('bits', 'exporter'),
    [(32, 'torchscript'), (8, 'torchscript'), (4, 'torchscript'), (8, 'dynamo')],
)
def test_dynamic_graphs_return_what_the_model_does(bits, exporter, tmp_path):
    model = build(bits)
    report, graph = export(model, tmp_path, exporter, dynamic=True)
    assert [parity.size for parity in report.parities] == [(65, 97), (49, 61)]
    assert max(parity.largest for parity in report.parities) < 1e-5
    assert report.expected.kept[:2] == (
        672,
        672,
    )  # ceil(0.3 * 40 * 56), the padded 33x49 map of the block
    for size in ODD_SIZES:
        x = torch.randn(1, 3, *size)
        np.testing.assert_allclose(
            run_graph(graph, x)[0], model(x).detach().numpy(), rtol=0, atol=1e-5
        )
    assert 'BatchNormalization' not in types(graph)


@pytest.mark.parametrize('exporter', ['torchscript', 'dynamo'])
def test_static_graphs_have_one_size(exporter, tmp_path):
    report, graph = export(build(8), tmp_path, exporter)
    assert len(report.parities) == 1 and report.parities[0].largest < 1e-5
    assert [dim.dim_value for dim in graph.graph.input[0].type.tensor_type.shape.dim] == [
        1,
        3,
        65,
        97,
    ]


def test_quantizers_of_eight_bits_become_operators_with_int8_weights(tmp_path):
    report, graph = export(build(8), tmp_path)
    assert (
        report.expected.quantized,
        report.expected.rounded,
        report.expected.integer_weights,
    ) == (4, 0, 4)
    assert types(graph).count('QuantizeLinear') == 4
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in graph.graph.initializer
        if tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    ]
    weights = [array for array in weights if array.size > 1]
    # Something else than a quantizer reads the depthwise layer, which is therefore a ConvInteger.
    assert [array.dtype for array in weights].count(np.uint8) == 1 and len(weights) == 4
    lowest = [array.min() - 128 * (array.dtype == np.uint8) for array in weights]
    assert min(lowest) == -127  # the grid is symmetric
    assert 'int8 weights' in str(report)


@pytest.mark.parametrize('kind', ['LearnedClip', 'LSQ'])
@pytest.mark.parametrize('qdq', [True, False])
def test_clips_of_channels_become_scales_of_an_axis(kind, qdq, tmp_path):
    report, graph = export(build(4, kind, per_channel=True), tmp_path, qdq=qdq)
    assert max(parity.largest for parity in report.parities) < 1e-5
    weights = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer
    }
    scales = [
        weights[node.input[1]]
        for node in graph.graph.node
        if node.op_type == 'DequantizeLinear' and node.input[0] in weights
    ]
    assert len(scales) == (3 if qdq else 0)  # and one in a ConvInteger
    for scale in scales:  # of different normalizations and different clips
        assert scale.ndim == 1 and len(np.unique(scale)) == len(scale)


@pytest.mark.parametrize(('bits', 'qdq'), [(8, False), (12, True)])
def test_other_quantizers_become_clip_and_round(bits, qdq, tmp_path):
    report, graph = export(build(bits), tmp_path, qdq=qdq)
    assert 'QuantizeLinear' not in types(graph) and types(graph).count('Round') == 4
    assert report.parities[0].largest < 1e-5


@pytest.mark.parametrize(
    'pointwise',
    [dict(wavelet='db2', levels=2), dict(levels=1), dict(selection='coarse'), dict(keep_ratio=1.0)],
)
def test_other_wavelets_depths_and_selections(pointwise, tmp_path):
    report, graph = export(build(8, **pointwise), tmp_path, dynamic=True)
    # Single values at the edge of two levels may fall to the other side.
    assert max(parity.mean for parity in report.parities) < 1e-3
    expected = 0 if 'selection' in pointwise or 'keep_ratio' in pointwise else 3
    assert types(graph).count('TopK') == expected == len(report.expected.kept)


def test_lsq_with_its_lowest_level(tmp_path):
    report, _ = export(build(8, kind='LSQ'), tmp_path)
    assert report.parities[0].largest < 1e-5


@pytest.mark.parametrize('exporter', ['torchscript', 'dynamo'])
def test_thresholds_need_no_topk(exporter, tmp_path, images):
    report, graph = export(build(8), tmp_path, exporter, selection='threshold', calibration=images)
    assert not {'TopK', 'ScatterND', 'ScatterElements', 'GatherND'} & set(types(graph))
    assert len(report.expected.thresholds) == 3 and report.parities[0].largest < 1e-5
    assert all(abs(kept - 0.3) < 0.05 for kept in report.kept.values())
    assert 0 < report.parities[0].from_model < 5
    assert 'thresholds keep' in str(report) and 'with the k largest' in str(report)


def test_a_dense_network(tmp_path, capsys):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)
    ).eval()
    report, graph = export(model, tmp_path, dynamic=True)
    assert report.expected.layers == 0 and types(graph) == ['Conv', 'Relu', 'Conv']
    assert not capsys.readouterr().err


def test_each_step_is_announced_on_request(tmp_path, images, capsys):
    export(build(8), tmp_path, selection='threshold', calibration=images, verbose=True)
    lines = capsys.readouterr().err.splitlines()  # others may be about the compilation of kernels
    said = [line.partition(' (')[0] for line in lines if line.startswith('export_onnx')]
    assert said == [
        'export_onnx: 1/4 fold BatchNorm',
        f'export_onnx: 2/4 find thresholds on {len(images)} images',
        'export_onnx: 3/4 write the graph, exporter torchscript',
        'export_onnx: 4/4 compare with the model at 65x97',
    ]


def test_the_model_is_not_changed(tmp_path):
    model = build(8).train()
    model.stem.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    export(model, tmp_path)
    assert model.training and not model.stem.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_frozen_k_is_seen(tmp_path, monkeypatch):
    frozen = ExportableWaveletConv2d._multiply_largest

    def freeze(layer, rows, batch, positions):
        monkeypatch.setattr(
            'mmwcc.deployment.layers.kept_positions', lambda n, ratio: -(-int(n) * 3 // 10)
        )
        return frozen(layer, rows, batch, positions)

    monkeypatch.setattr(ExportableWaveletConv2d, '_multiply_largest', freeze)
    with pytest.raises(
        ExportError, match='got graphs without k=.* for an input of 49x61. The k was frozen'
    ):
        export(build(), tmp_path, dynamic=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('keep', 'message'),
    [
        (
            lambda module: type(module).__name__ != 'ExportableConv2d',
            'must hold 4 QuantizeLinear, .* got 3',
        ),
        (
            lambda module: type(module).__name__ != 'ExportableWaveletConv2d',
            'must hold 4 QuantizeLinear, .* got 1',
        ),
    ],
)
def test_a_layer_that_became_dense_is_seen(keep, message, tmp_path, monkeypatch):
    real = exporting.exportable

    def lossy(network, x, **kwargs):
        network = real(network, x, **kwargs)
        for name, module in list(network.named_modules()):
            if not keep(module):
                dense = nn.LazyConv2d(
                    module.bias.numel() if module.bias is not None else module.weight.shape[-1],
                    1,
                    stride=module.stride,
                )
                parent, _, attribute = name.rpartition('.')
                setattr(network.get_submodule(parent), attribute, dense)
        network(x)
        return network

    monkeypatch.setattr(exporting, 'exportable', lossy)
    with pytest.raises(ExportError, match=message):
        export(build(8), tmp_path)


def test_a_selection_that_was_lost_is_seen(tmp_path, monkeypatch, images):
    real = exporting.exportable

    def all_kept(network, x, **kwargs):
        network = real(network, x, **kwargs)
        for module in network.modules():
            if isinstance(module, ExportableWaveletConv2d):
                module.keep_ratio = 1.0
        return network

    monkeypatch.setattr(exporting, 'exportable', all_kept)
    with pytest.raises(
        ExportError, match='must hold 3 TopK, .* got 0. The export lost the compression of 3 layers'
    ):
        export(build(), tmp_path)


def test_other_weights_are_seen(tmp_path, monkeypatch):
    real = exporting.exportable

    def damaged(network, x, **kwargs):
        network = real(network, x, **kwargs)
        network.model.last.weight.data.mul_(1.1)
        return network

    monkeypatch.setattr(exporting, 'exportable', damaged)
    with pytest.raises(ExportError, match='must return what torch does, got a mean difference of'):
        export(build(), tmp_path)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(exporter='onnx'), "exporter must be one of auto, dynamo, torchscript, got 'onnx'"),
        (dict(selection='energy'), "selection must be one of topk, threshold, got 'energy'"),
        (dict(exporter='dynamo', opset=13), 'opset must be at least 18'),
        (dict(selection='threshold'), 'calibration must hold images'),
        (dict(argmax=True), 'argmax must be False for a model that is no segmentor'),
    ],
)
def test_bad_arguments(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(build(), tmp_path, **arguments)
    with pytest.raises(ValueError, match='shape must be height and width'):
        export_onnx(build(), tmp_path / 'x.onnx', (0, 5))


def test_models_that_cannot_be_exported(tmp_path):
    model = build(8)
    to_integer(model, verbose=False)
    with pytest.raises(
        ValueError, match='must be as it was trained, got fused or integer layers: model.expand'
    ):
        export(model, tmp_path)
    model = build(8)
    model.expand.act_quant.reset_parameters()
    model.expand.act_quant._remember()
    with pytest.raises(
        RuntimeError, match='must have learned its clip, got layers .* initialized: model.expand'
    ):
        export(model, tmp_path)
    model = build(8)
    model.roi_head = nn.Identity()
    with pytest.raises(ValueError, match='roi_head must be an RPN'):
        export(model, tmp_path)


class TwoStages(nn.Module):
    """The parts of a two-stage detector of mmdet, with two levels."""

    class Proposals(nn.Module):
        def __init__(self):
            super().__init__()
            self.scores, self.boxes = nn.Conv2d(8, 3, 1), nn.Conv2d(8, 12, 1)

        def forward_single(self, x):
            return self.scores(x), self.boxes(x)

        def forward(self, maps):
            return tuple(map(list, zip(*map(self.forward_single, maps), strict=True)))

    def __init__(self):
        super().__init__()
        self.backbone, self.rpn_head = nn.Conv2d(3, 8, 3, padding=1), self.Proposals()
        self.roi_head = nn.Linear(8, 2)

    def extract_feat(self, x):
        fine = self.backbone(x)
        return fine, nn.functional.max_pool2d(fine, 2)


def test_a_two_stage_detector_is_exported_without_its_second_stage(tmp_path):
    report, model = export(TwoStages().eval(), tmp_path)
    assert 'not in the file: roi_head, which starts from boxes' in str(report)
    names = [output.name for output in model.graph.output]
    assert names == [f'output_{kind}_{level}' for kind in range(3) for level in range(2)]


def test_what_no_exporter_knows(tmp_path):
    class Sorted(nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x[0, 0] @ x[0, 0].T).real

    with pytest.raises(ExportError, match='must know every operator of the model. torchscript: '):
        export(Sorted(), tmp_path)


def test_branches_that_share_a_map_may_share_its_quantizer(tmp_path):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.one, self.other = (
                nn.Conv2d(3, 8, 1),
                nn.Conv2d(8, 4, 1),
                nn.Conv2d(8, 4, 3, padding=1),
            )

        def forward(self, x):
            x = self.stem(x)
            return self.one(x) + self.other(x)

    model = Branches()
    compress_model(
        model,
        dict(
            pointwise=dict(type='mmwcc.QuantConv2d'),
            other=dict(type='mmwcc.QuantConv2d'),
            keep_dense=['stem'],
            **quantizers(8),
        ),
        verbose=False,
    )
    model(torch.randn(1, 3, 16, 16))
    report, graph = export(model.eval(), tmp_path, 'dynamo')
    assert report.expected.quantized == types(graph).count('QuantizeLinear') == 1
    assert report.expected.integer_weights == 2


def test_what_no_output_needs_is_not_missed(tmp_path):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.used, self.idle = (
                nn.Conv2d(3, 8, 1),
                nn.Conv2d(8, 4, 1),
                nn.Conv2d(8, 4, 1),
            )

        def forward(self, x):
            x = self.stem(x)
            self.idle(x)
            return self.used(x)

    model = Idle()
    compress_model(
        model,
        dict(
            pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5),
            keep_dense=['stem'],
        ),
        verbose=False,
    )
    report, graph = export(model.eval(), tmp_path)
    assert report.expected.layers == types(graph).count('TopK') == 1
