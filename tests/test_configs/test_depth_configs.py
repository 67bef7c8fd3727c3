"""The depth configs: published costs, and which layers the ladder compresses."""

import json
from pathlib import Path

import pytest
from fabricated import config_files, drop_pretrained, read
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmwcc.cost import count_cost
from mmwcc.model_tree.compressed import compressed_layers

NAMES = [name for name in config_files() if name.startswith('depth/')]
FIGURES = json.loads((Path(__file__).parents[1] / 'test_cost' / 'paper_tables.json').read_text())[
    'figures'
]
KITTI = 'depth/monodepth2_mobilenetv2_{}_1xb12-20e_kitti-192x640.py'
STREET = KITTI.replace('1xb12-20e_kitti-192x640', '{}_street-64x192')


def build(name: str):
    cfg = read(name)
    drop_pretrained(cfg.model)
    init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model)


@pytest.mark.parametrize(('step', 'figure'), [('dense', 'T3.FP32'), ('quant-w8a8', 'T3.8/8')])
def test_published_costs(step, figure):
    bops = count_cost(build(KITTI.format(step)), (192, 640)).total.total_bops
    assert bops == pytest.approx(FIGURES[figure]['computed'] * 1e9, rel=1e-14)
    assert round(bops / 1e9, 1) == FIGURES[figure]['published']


def test_costs_fall_along_the_ladder():
    steps = ('dense', 'quant-w8a8', 'wcc-w8a8-k50', 'wcc-w8a8-k25', 'wcc-w8a8-k12_5')
    costs = [count_cost(build(KITTI.format(step)), (192, 640)).total.total_bops for step in steps]
    assert costs == sorted(costs, reverse=True)


def test_what_stays_dense():
    model = build(STREET.format('wcc-w8a8-k50', '60i'))
    convs = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    dense = convs - set(compressed_layers(model))
    assert {name for name in dense if not name.startswith(('pose_net.', 'decoder.dispconvs.'))} == {
        'backbone.conv1.conv'
    }
    assert sum(name.startswith('decoder.dispconvs.') for name in dense) == 8
    assert not any(
        name.startswith(('pose_net.', 'decoder.dispconvs.')) for name in compressed_layers(model)
    )


@pytest.mark.parametrize(
    'step',
    ['quant-w8a8', 'quant-w8a4', 'quant-w8a2', 'wcc-w8a8-k50', 'wcc-w8a8-k25', 'wcc-w8a8-k12_5'],
)
def test_both_ladders_compress_alike(step):
    street, kitti = read(STREET.format(step, '60i')), read(KITTI.format(step))
    assert street.model.compression == kitti.model.compression == kitti.compression
    assert street.model.decoder == kitti.model.decoder


def test_every_depth_config_is_of_a_ladder():
    assert len(NAMES) == 14
