"""Checkpoints of version 0.1, which compressed layers that now stay dense because they predict."""

import ast
import copy
import pickle
import re
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.compression.old_checkpoints import advice_for
from mmwcc.inference import to_integer

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_model_tree'))
pytest.importorskip('mmdet', exc_type=ImportError)

from mmdet.registry import MODELS  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402
from mmengine.runner.checkpoint import load_state_dict  # noqa: E402
from toy_heads import PIXEL_DECODER, mask_former  # noqa: E402
from toy_heads_mmdet import DENSE, PANOPTIC, TOWER, five, one, with_samples  # noqa: E402

QUANTIZED = dict(
    pointwise=dict(type='mmwcc.QuantConv2d'),
    other=dict(type='mmwcc.QuantConv2d'),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)
PROJECTED = mask_former(PIXEL_DECODER, **PANOPTIC, enforce_decoder_input_project=True)

# The head, how it runs, what version 0.1 kept for 'last', and what else predicts.
HEADS = dict(
    CenterNetHead=(DENSE, one, ['offset_head.2'], ['heatmap_head.2', 'wh_head.2']),
    CondInstBboxHead=(TOWER, five, ['conv_cls', 'conv_reg', 'conv_centerness'], ['controller']),
    MaskFormerHead=(
        PROJECTED,
        with_samples,
        ['decoder_input_proj'],
        ['pixel_decoder.mask_feature'],
    ),
)


def build(head, **compression) -> nn.Module:
    torch.manual_seed(0)
    config = ConfigDict(HEADS[head][0], type=head)
    model = nn.ModuleDict(dict(stem=nn.Conv2d(3, 8, 1), the_head=MODELS.build(config)))
    compress_model(model, {**QUANTIZED, **compression}, verbose=False)
    return model


def outputs(head, model):
    torch.manual_seed(1)
    return HEADS[head][1](model.eval()['the_head'])


def of_version_0_1(head) -> nn.Module:
    """Build what version 0.1 made of keep_dense=['first', 'last'], and calibrate it."""
    model = build(head, keep_dense=['first', *(f'the_head.{name}' for name in HEADS[head][2])])
    HEADS[head][1](model.train()['the_head'])
    return model


def rule(message: str) -> list[str]:
    return ast.literal_eval(re.search(r'Set keep_dense=(\[.*?\]) in', message)[1])


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize(
    'load',
    [load_state_dict, lambda model, state: model.load_state_dict(state, strict=False)],
    ids=['mmengine', 'torch'],
)
def test_loading_says_how_to_build_the_network(head, load):
    old = of_version_0_1(head)
    kept, compressed = HEADS[head][2:]
    names = ', '.join(f'the_head.{name}' for name in compressed)
    words = (
        r"^ModuleDict: keep_dense 'last' keeps all prediction layers dense, and the checkpoint "
        rf'compresses {names}, as mmwcc did before this release\. Set'
    )
    with pytest.warns(UserWarning, match=words) as said:
        load(build(head), old.state_dict())
    assert rule(str(said[0].message)) == ['first', *(f'the_head.{name}' for name in kept)]
    again = build(head, keep_dense=rule(str(said[0].message)))
    with warnings.catch_warnings(action='error'):
        again.load_state_dict(old.state_dict())
    torch.testing.assert_close(outputs(head, again), outputs(head, old), rtol=0, atol=0)


def test_strict_loading_says_it_before_torch_refuses():
    state = of_version_0_1('CenterNetHead').state_dict()
    with pytest.raises(RuntimeError, match='Unexpected key'), pytest.warns(match='Set keep_dense='):
        build('CenterNetHead').load_state_dict(state)


def test_integers_are_seen():
    old = of_version_0_1('CenterNetHead')
    to_integer(old)
    with pytest.raises(
        RuntimeError, match='compresses the_head.heatmap_head.2, the_head.wh_head.2, as mmwcc did'
    ):
        build('CenterNetHead').load_state_dict(old.state_dict(), strict=False)


@pytest.mark.parametrize(
    'copied',
    [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: nn.ModuleDict(dict(module=model)),
    ],
)
def test_copies_and_wrappers_say_it_too(copied):
    model, old = copied(build('CenterNetHead')), copied(of_version_0_1('CenterNetHead'))
    with pytest.warns(match=re.escape("['first', 'the_head.offset_head.2']")):
        model.load_state_dict(old.state_dict(), strict=False)


def test_what_fits_is_loaded_without_a_word():
    model = build('CenterNetHead')
    compress_model(model, QUANTIZED, verbose=False)
    dense = build('CenterNetHead', keep_dense=['.*'])
    with warnings.catch_warnings(action='error'):
        model.load_state_dict(dense.state_dict(), strict=False)
        build('CenterNetHead').load_state_dict(model.state_dict())


def test_a_layer_that_is_compressed_in_both_needs_no_advice():
    model = build('CenterNetHead', keep_dense=[])
    compress_model(model, QUANTIZED, verbose=False)
    assert advice_for(model, model.state_dict()) == ''
