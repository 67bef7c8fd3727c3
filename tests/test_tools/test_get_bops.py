"""tools/analysis_tools/get_bops.py."""

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip('mmseg', reason='the shipped configs need mmsegmentation', exc_type=ImportError)

ROOT = Path(__file__).parents[2]
WCC = ROOT / 'configs' / 'wcc'
DENSE = str(WCC / 'deeplabv3plus_mobilenetv2-os16_dense_3000i_camvid-256x256.py')
COMPRESSED = str(WCC / 'deeplabv3plus_mobilenetv2-os16_wcc-w8a8-k25_400i_camvid-256x256.py')
DETECTOR = str(WCC / 'detection' / 'retinanet_r50-fpn_wcc-w8a8-k50_1x_coco-1333x800.py')


@pytest.fixture(scope='module')
def tool():
    path = ROOT / 'tools' / 'analysis_tools' / 'get_bops.py'
    spec = importlib.util.spec_from_file_location('get_bops', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def counted(tool, tmp_path, *arguments):
    out = tmp_path / 'new' / 'cost.json'
    tool.main([*arguments, '--out', str(out)])
    return json.loads(out.read_text())


def test_compressed_segmentor(tool, capsys, tmp_path):
    cost = counted(tool, tmp_path, COMPRESSED)
    captured = capsys.readouterr()
    assert captured.err.startswith('get_bops: ') and ' layers\n' in captured.err
    lines = captured.out.splitlines()
    assert lines[0] == f'EncoderDecoder of {COMPRESSED}' and lines[1].startswith('layer ')
    assert len(lines) == 1 + 2 + 66 + 1 + 5 + 5 + 5  # and no table of the conversion
    assert any(
        line == "input 1x3x256x256; convention 'exact'; full precision counts as 32 bits"
        for line in lines
    )
    assert lines[-6] == 'not reached by this input, parameters not counted: auxiliary_head'
    assert lines[-5] == 'What this gains for an input of 1x3x256x256:'
    assert cost['gain']['macs'] == [2_060_320_768, cost['total']['macs']]
    assert cost['model'] == 'EncoderDecoder' and cost['input_shape'] == [1, 3, 256, 256]
    layers = {layer['name']: layer for layer in cost['layers']}
    expand = layers['backbone.layer2.0.conv.0.conv']  # 16 to 96 channels at 128x128
    assert (expand['kind'], expand['macs']) == ('wcc', 16 * 96 * 128 * 128 // 4)
    assert expand['transform_bops'] == 4 * (16 + 96) * 128 * 128 * 21 / 16 * 8
    assert {kind: costs['layers'] for kind, costs in cost['by_kind'].items()} == dict(
        dense=2, quantized=24, wcc=40, transform=0
    )


def test_agrees_with_mmengine(tool, tmp_path):
    from mmengine.analysis import get_model_complexity_info

    from mmwcc.model_tree.compressed import compressed_layers

    cost = counted(tool, tmp_path, COMPRESSED, '--shape', '64')
    model = tool.build_with_report(tool.load_config(COMPRESSED))[0].eval()
    model.auxiliary_head = None  # as mmsegmentation's get_flops.py does
    for layer in compressed_layers(model).values():
        layer.weight_quant.bits = layer.act_quant.bits = (
            32  # spares the search for clips, changes no count
        )
    info = get_model_complexity_info(model, (3, 64, 64), show_table=False, show_arch=False)
    transforms = sum(layer['transform_bops'] // layer['act_bits'] for layer in cost['layers'])
    assert info['flops'] == cost['total']['macs'] + sum(cost['elementwise'].values()) + transforms
    assert info['params'] == cost['total']['params']


def test_dense_segmentor(tool, tmp_path):
    cost = counted(tool, tmp_path, DENSE, '--shape', '64')
    total = cost['total']
    assert cost['gain'] is None
    assert (
        total['total_bops'] == 1024 * total['macs'] and total['weight_bytes'] == 4 * total['params']
    )


def test_detector_and_convention(tool, tmp_path):
    pytest.importorskip('mmdet', exc_type=ImportError)
    cost = counted(tool, tmp_path, DETECTOR, '--shape', '64', '96', '--convention', 'paper')
    calls = {layer['name']: layer['calls'] for layer in cost['layers']}
    assert cost['model'] == 'RetinaNet' and cost['convention'] == 'paper'
    assert calls['bbox_head.retina_cls'] == 5 and calls['backbone.conv1'] == 1


@pytest.mark.parametrize(
    ('config', 'macs', 'transforms'),
    [
        ('waveletnet/waveletnet-1.0x_4xb128-120e_imagenet-224x224.py', 204_806_400, True),
        pytest.param(
            'wae/vgg16_wae-stage3_8xb32-10e_imagenet-224x224.py',
            4_381_913_088,
            False,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_classifiers_of_the_other_papers(tool, tmp_path, config, macs, transforms):
    """The MACs of the published definitions: 204.8 M with the classifier; 263.7, 3836.7, 243.9 and
    37.7 M in parts.
    """
    cost = counted(tool, tmp_path, str(ROOT / 'configs' / config), '--shape', '224')
    assert cost['total']['macs'] == macs
    assert (cost['total']['transform_bops'] > 0) == transforms


def test_cfg_options(tool, tmp_path):
    option = 'model.compression.pointwise.keep_ratio=0.5'
    half = counted(tool, tmp_path, COMPRESSED, '--shape', '64', '64', '--cfg-options', option)
    assert {layer['keep_ratio'] for layer in half['layers']} == {None, 0.5}


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['missing.py'], 'get_bops: The config file missing.py does not exist'),
        (
            [str(ROOT / 'configs' / '_base_' / 'compression' / 'quant_w8a8.py'), '--shape', '8'],
            'has no `model`',
        ),
        (
            [COMPRESSED, '--shape', '64', '0'],
            'get_bops: count_cost: input_shape must be made of positive integers',
        ),
        (
            [COMPRESSED, '--cfg-options', 'compression.levels=2'],
            r'no effect, .* Use model\.compression\.levels\.',
        ),
    ],
)
def test_errors(tool, arguments, message):
    with pytest.raises(SystemExit, match=message):
        tool.main(arguments)


def test_size_of_images(tool, tmp_path):
    config = tool.load_config(DETECTOR)
    assert tool.requested_shape(config, None) == (800, 1344)  # 1333, padded to a multiple of 32
    assert tool.requested_shape(config, [64]) == (64, 64)
    config.pop('test_dataloader')
    config.pop('val_dataloader')
    with pytest.raises(tool.LaunchError, match='names no size of images: .* Give --shape HEIGHT'):
        tool.requested_shape(config, None)


def test_out_must_be_json(tool, capsys):
    with pytest.raises(SystemExit):
        tool.main([DENSE, '--out', 'cost.txt'])
    assert '--out must end in .json, got cost.txt' in capsys.readouterr().err
