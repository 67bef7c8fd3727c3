"""tools/analysis_tools/print_compression.py."""

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip('mmseg', reason='the shipped configs need mmsegmentation', exc_type=ImportError)

ROOT = Path(__file__).parents[2]
WCC = ROOT / 'configs' / 'wcc'
DENSE = str(WCC / 'deeplabv3plus_mobilenetv2-os16_dense_3000i_camvid-256x256.py')
COMPRESSED = str(WCC / 'deeplabv3plus_mobilenetv2-os16_wcc-w8a8-k25_400i_camvid-256x256.py')
BASE = str(ROOT / 'configs' / '_base_' / 'compression' / 'quant_w8a8.py')
DETECTOR = str(WCC / 'detection' / 'retinanet_r50-fpn_wcc-w8a8-k50_1x_coco-1333x800.py')


@pytest.fixture(scope='module')
def tool():
    path = ROOT / 'tools' / 'analysis_tools' / 'print_compression.py'
    spec = importlib.util.spec_from_file_location('print_compression', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_compressed_config(tool, capsys, tmp_path):
    out = tmp_path / 'new' / 'report.json'
    tool.main([COMPRESSED, '--out', str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f'EncoderDecoder of {COMPRESSED}'
    first = next(line for line in lines if line.startswith('backbone.conv1.conv '))
    assert first.split()[1:4] == ['Conv2d', '3x3/2', 'dense'] and first.endswith(
        "keep_dense 'first'"
    )
    expand = next(line for line in lines if line.startswith('backbone.layer2.0.conv.0.conv '))
    assert expand.split()[3:] == ['WaveletCompressedConv2d', '8', '8', '0.25', '1,536']
    summary = '68 convolutions: 25 QuantConv2d, 40 WaveletCompressedConv2d, 3 dense'
    assert lines[-6] == summary
    assert lines[-5] == 'What this gains for an input of 1x3x256x256:'
    assert lines[-4].startswith('  MACs   2.06 G -> 1.14 G (-44.')
    pooled = next(line for line in lines if line.startswith('decode_head.image_pool.1.conv '))
    assert 'QuantConv2d' in pooled and pooled.endswith('works on one pixel')

    report = json.loads(out.read_text())
    assert report['model'] == 'EncoderDecoder' and report['preset'] is None
    assert report['summary'] == summary
    assert report['gain']['input_shape'] == [1, 3, 256, 256]
    layers = {layer['name']: layer for layer in report['layers']}
    assert len(layers) == 68
    assert layers['backbone.layer2.0.conv.0.conv']['keep_ratio'] == 0.25
    assert layers['decode_head.conv_seg']['reason'] == "keep_dense 'last'"


def test_is_what_training_builds(tool):
    from mmengine.registry import MODELS

    from mmwcc.model_tree.compressed import compressed_layers

    config = tool.load_config(COMPRESSED)
    model, report = tool.report_compression(config)
    built = MODELS.build(config.model)
    assert set(compressed_layers(built)) == {
        layer.name for layer in report if layer.after != 'dense'
    }
    assert set(model.state_dict()) == set(built.state_dict())


def test_dense_config_and_preset(tool, capsys):
    tool.main([DENSE])
    assert capsys.readouterr().out.splitlines()[-1] == '68 convolutions: 68 dense'
    tool.main([DENSE, '--preset', 'wcc_w8a8_k25'])
    with_preset = capsys.readouterr().out.splitlines()
    tool.main([COMPRESSED])
    assert with_preset[0].endswith(' with preset wcc_w8a8_k25')
    assert with_preset[1:] == capsys.readouterr().out.splitlines()[1:]


SEGMENTER = """
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder', test_cfg=dict(mode='whole'),
    backbone=dict(type='VisionTransformer', img_size=32, patch_size=16, embed_dims=8, num_layers=1,
                  num_heads=2, out_indices=0),
    decode_head=dict(type='SegmenterMaskTransformerHead', in_channels=8, channels=8, num_classes=3,
                     num_layers=1, num_heads=2, embed_dims=8))
"""


def test_a_network_of_linear_layers(tool, tmp_path, capsys):
    """It has one convolution, which is the first and the last."""
    config, out = tmp_path / 'segmenter.py', tmp_path / 'report.json'
    config.write_text(SEGMENTER)
    with pytest.raises(
        SystemExit,
        match='EncoderDecoder with all convolutions left dense .1 x '
        "keep_dense 'last'. and with layers that .*9 Linear",
    ):
        tool.main([str(config), '--preset', 'wcc_w8a8_k25'])
    config.write_text(
        SEGMENTER + "model.update(type='mmwcc.CompressedModel', task_type="
        "'EncoderDecoder', compression=dict(keep_dense=['.*']))"
    )
    tool.main([str(config), '--out', str(out)])
    unhandled, warning, summary = capsys.readouterr().out.splitlines()[-3:]
    assert unhandled.startswith('Not handled: ') and '9 Linear (' in unhandled
    assert warning.startswith('compress_model: compression must change a layer')
    assert summary == '1 convolutions: 1 dense'
    report = json.loads(out.read_text())
    assert report['warning'] == warning
    assert 'Linear' in {layers['kind'] for layers in report['unhandled']}


def test_detector(tool, capsys):
    tool.main([DETECTOR, '--shape', '64', '96'])
    output = capsys.readouterr().out
    assert output.startswith('RetinaNet of ')
    assert '\n71 convolutions: 29 QuantConv2d, 39 WaveletCompressedConv2d, 3 dense\n' in output
    assert 'What this gains for an input of 1x3x64x96' in output


def test_a_size_that_nothing_tells_or_that_does_not_fit(tool, capsys, tmp_path):
    config = tmp_path / 'sizeless.py'
    config.write_text(
        f'_base_ = [{COMPRESSED!r}]\ncrop_size = None\ntest_dataloader = None\n'
        'val_dataloader = None\n'
    )
    tool.main([str(config), '--cfg-options', 'model.data_preprocessor.size=None'])
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .endswith('Give --shape HEIGHT WIDTH to see what is gained.')
    )
    tool.main([str(config), '--cfg-options', 'crop_size=(5,64,64)'])
    assert 'What is gained could not be counted: count_cost' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='print_compression: count_cost: .* must run on an input'):
        tool.main([str(config), '--shape', '5', '64', '64'])


def test_cfg_options(tool, capsys):
    tool.main([COMPRESSED, '--cfg-options', 'model.compression.pointwise.keep_ratio=0.1'])
    output = capsys.readouterr().out
    assert '  0.1  ' in output and '  0.25  ' not in output


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['missing.py'], 'config file missing.py does not exist'),
        ([BASE], 'quant_w8a8.py has no `model`'),
        ([BASE, '--preset', 'wcc_w8a8_k50'], 'quant_w8a8.py has no `model`'),
        (
            [COMPRESSED, '--cfg-options', 'compression.levels=2'],
            r'no effect, .* Use model\.compression\.levels\.',
        ),
        ([COMPRESSED, '--preset', 'wcc_w8a8_k50'], 'compressed already'),
        ([DENSE, '--preset', 'wcc_w8a8_k5'], "Did you mean 'wcc_w8a8_k50'"),
        (
            [COMPRESSED, '--cfg-options', 'model.compression.pointwise.keep_ratio=1.5'],
            r'keep_ratio must be in \(0, 1\]',
        ),
    ],
)
def test_errors(tool, arguments, message):
    with pytest.raises(SystemExit, match=message):
        tool.main(arguments)


def test_out_must_be_json(tool, capsys):
    with pytest.raises(SystemExit):
        tool.main([DENSE, '--out', 'report.txt'])
    assert '--out must end in .json, got report.txt' in capsys.readouterr().err
