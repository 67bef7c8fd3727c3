"""Whole compressed networks through torch.compile and torch.export."""

import pytest
import torch
import toy_mobilenet
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmwcc.registry import MODELS

pytest.importorskip('mmseg')

NETWORK = """
_base_ = ['mmseg::_base_/models/deeplabv3plus_r50-d8.py', 'mmwcc::_base_/compression/{preset}.py']
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='mmwcc.CompressedModel', task_type='EncoderDecoder', compression=_base_.compression,
        pretrained=None,
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(_delete_=True, type='ToyMobileNetV2', widen_factor=0.5, out_indices=(1, 2, 4, 6),
        norm_cfg=norm_cfg,
                  strides=(1, 2, 2, 1, 1, 1, 1), dilations=(1, 1, 1, 2, 2, 4, 4)),
    decode_head=dict(in_channels=160, channels=32, c1_in_channels=16, c1_channels=8,
        num_classes=5, norm_cfg=norm_cfg,
                     dilations=(1, 6)),
    auxiliary_head=None)
"""


@pytest.fixture
def network(tmp_path, request):
    toy_mobilenet.register('mmseg')
    path = tmp_path / 'network.py'
    path.write_text(NETWORK.format(preset=request.param))
    init_default_scope('mmseg')
    model = MODELS.build(Config.fromfile(path).model)
    model(torch.rand(2, 3, 64, 64))  # calibrates what is to be calibrated
    return model


@pytest.mark.parametrize('network', ['wcc_fp_k25', 'wcc_w8a8_k25'], indirect=True)
def test_a_compressed_network_compiles_as_one_graph(network):
    torch._dynamo.reset()
    x = torch.rand(2, 3, 64, 64)
    network.decode_head.dropout = None  # the only randomness
    compiled = torch.compile(network, fullgraph=True, backend='aot_eager')
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    gradients = []
    for run in (network, compiled):
        network.load_state_dict(state)  # BatchNorm moves its statistics
        network.zero_grad()
        run(x).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0])
    network.eval()
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x), network(x))


@pytest.mark.parametrize('network', ['wcc_w8a8_k25'], indirect=True)
def test_a_compressed_network_exports_with_dynamic_sizes(network):
    network.eval()
    sizes = {
        axis: 8 * torch.export.Dim(name, min=4, max=64) for axis, name in ((2, 'rows'), (3, 'cols'))
    }
    program = torch.export.export(
        network, (torch.rand(2, 3, 64, 64),), dynamic_shapes=dict(inputs=sizes)
    )
    with torch.inference_mode():
        for height, width in ((64, 64), (40, 104)):
            x = torch.rand(2, 3, height, width)
            torch.testing.assert_close(program.module()(x), network(x))
