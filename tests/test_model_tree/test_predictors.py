"""Which layers predict: those that reach an output of a head with no layer between."""

import importlib

import pytest
import torch
from torch import Tensor, nn

from mmwcc.model_tree.predictors import prediction_layers

pytest.importorskip('mmdet', exc_type=ImportError)
pytest.importorskip('mmseg', exc_type=ImportError)

import mmdet.models  # noqa: E402,F401  fills the registries
import mmseg.models  # noqa: E402,F401
import toy_heads_mmdet  # noqa: E402
import toy_heads_mmseg  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402

LIBRARIES = dict(mmseg=toy_heads_mmseg, mmdet=toy_heads_mmdet)
CASES = [
    (library, name, number)
    for library, heads in LIBRARIES.items()
    for name, cases in heads.HEADS.items()
    if name not in heads.MISSING
    for number in range(len(cases))
]


def registry(library):
    return importlib.import_module(f'{library}.registry').MODELS


def build(library, name, config) -> nn.Module:
    return registry(library).build(ConfigDict(config, type=name))


def learned(module: nn.Module) -> bool:
    """Tell convolutions, linear layers and attention from norms, scales and embeddings."""
    if isinstance(module, nn.MultiheadAttention):
        return True
    weight = module._parameters.get('weight')
    return weight is not None and weight.dim() > 1 and not isinstance(module, nn.Embedding)


def tensors(outputs) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.requires_grad else []
    if isinstance(outputs, dict):
        outputs = outputs.values()
    return [x for item in outputs for x in tensors(item)] if hasattr(outputs, '__iter__') else []


def reaching_the_outputs(head: nn.Module, run) -> set[nn.Module]:
    """Run a head, and return the layers that reach its outputs with no other layer between.

    Every learned layer gives a leaf of the graph, so that no gradient passes to what lies before.
    """
    leaves = []

    def cut(module, args, output):
        value = output[0] if isinstance(output, tuple) else output
        leaf = value.detach().requires_grad_()
        leaves.append((module, leaf))
        value = leaf.clone()  # which may be changed in place
        return (value, *output[1:]) if isinstance(output, tuple) else value

    for module in head.modules():
        if learned(module):
            module.register_forward_hook(cut)
    totals = [output.sum() for output in tensors(run(head))]
    gradients = torch.autograd.grad(totals, [leaf for _, leaf in leaves], allow_unused=True)
    assert any(gradient is not None for gradient in gradients)
    reaching = [
        module
        for (module, _), gradient in zip(leaves, gradients, strict=True)
        if gradient is not None
    ]
    return {getattr(module, 'out_proj', module) for module in reaching}


def check(model: nn.Module, run) -> None:
    """Compare with the graph; a layer that consists of several predicts by its last one."""
    names = {
        layer: name
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    }
    found = [
        [layer for layer in model.get_submodule(name).modules() if layer in names][-1]
        for name in prediction_layers(model)
    ]
    expected = reaching_the_outputs(model, run).intersection(names)
    assert {names[layer] for layer in found} == {names[layer] for layer in expected}


@pytest.mark.parametrize(('library', 'name', 'number'), CASES)
def test_the_table_is_the_structure(library, name, number):
    torch.manual_seed(0)
    config, run = LIBRARIES[library].HEADS[name][number]
    check(build(library, name, config), run)


@pytest.mark.parametrize('library', LIBRARIES)
def test_every_registered_head_is_traced_or_named_with_a_reason(library):
    heads = LIBRARIES[library]
    registered = {
        name
        for name, kind in registry(library).module_dict.items()
        if kind.__module__.startswith(f'{library}.')
        and ('_heads.' in kind.__module__ or name.endswith('Head'))
    }
    assert registered == heads.HEADS.keys() | heads.OTHERS.keys()
    assert not heads.HEADS.keys() & heads.OTHERS.keys()


@pytest.mark.parametrize('name', toy_heads_mmdet.MISSING)
def test_what_is_not_traced_cannot_be_built(name):
    config, _ = toy_heads_mmdet.HEADS[name][0]
    with pytest.raises(RuntimeError, match=toy_heads_mmdet.MISSING[name]):
        build('mmdet', name, config)


def test_networks_of_our_own():
    from mmwcc.models import DepthDecoder, LinearClsHead, PoseNetwork
    from mmwcc.models.detection.efficientdet_head import EfficientDetHead

    pyramid = [torch.randn(2, 4, 32 >> level, 32 >> level) for level in range(5)]
    check(EfficientDetHead(3, 4, stacked_convs=1), lambda head: head(pyramid))
    check(LinearClsHead(3, 8, hidden_channels=[4]), lambda head: head(torch.randn(2, 8)))
    check(LinearClsHead(3, 8), lambda head: head(torch.randn(2, 8)))
    check(DepthDecoder([4] * 5, channels=[4] * 5), lambda decoder: decoder(pyramid, (64, 64)))
    images = torch.randn(2, 3, 64, 64)
    resnet = dict(type='mmdet.ResNet', depth=18, base_channels=4, out_indices=(3,))
    check(PoseNetwork(resnet, 32, channels=4), lambda network: network(images, images))


def test_heads_of_other_projects():
    """What a base has and what is named as a predictor; in known heads no name counts."""
    from mmdet.models import CenterNetHead, GARetinaHead

    class Tracking(CenterNetHead):
        def __init__(self):
            super().__init__(8, 8, 3)
            self.embed, self.conv_cls = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    own = nn.ModuleDict(
        dict(hidden=nn.Conv2d(8, 8, 1), fc_cls=nn.Linear(8, 8), my_logits=nn.Conv2d(8, 8, 1))
    )
    known = GARetinaHead(3, 8, feat_channels=8, stacked_convs=1, deform_groups=1)
    model = nn.ModuleDict(
        dict(conv_cls=nn.Conv2d(8, 8, 1), own_head=own, derived_head=Tracking(), known_head=known)
    )
    assert prediction_layers(model) == {
        'own_head.fc_cls',
        'own_head.my_logits',
        'derived_head.heatmap_head.2',
        'derived_head.wh_head.2',
        'derived_head.offset_head.2',
        'derived_head.conv_cls',
        'known_head.conv_loc',
        'known_head.conv_shape',
        'known_head.retina_cls',
        'known_head.retina_reg',
    }


def test_shared_predictors_have_all_their_names():
    head = build('mmdet', 'DINOHead', toy_heads_mmdet.DEFORMABLE)
    decoder = nn.ModuleDict(dict(branches=head.reg_branches))
    model = nn.ModuleDict(dict(decoder=decoder, bbox_head=head))
    names = {f'reg_branches.{stage}.4' for stage in range(3)}
    assert {f'bbox_head.{name}' for name in names} <= prediction_layers(model)
    assert {f'decoder.{name[4:]}' for name in names} <= prediction_layers(model)


def test_a_model_without_heads_has_none():
    assert prediction_layers(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 4))) == set()


def test_a_class_of_another_library_is_known_by_its_layers_not_by_its_name():
    class RTMDetHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.head_module = nn.ModuleDict(
                dict(
                    tower=nn.Conv2d(4, 4, 3), rtm_cls=nn.Conv2d(4, 2, 1), rtm_reg=nn.Conv2d(4, 4, 1)
                )
            )

    model = nn.ModuleDict(dict(bbox_head=RTMDetHead()))
    assert prediction_layers(model) == {
        'bbox_head.head_module.rtm_cls',
        'bbox_head.head_module.rtm_reg',
    }
