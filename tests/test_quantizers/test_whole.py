"""Which model a quantizer belongs to, and what it learns in frozen parts of it."""

import copy
import gc
import io
import weakref

import pytest
import torch
from torch import nn

from mmwcc.compression import compress_model

from .rank_scenarios import CONFIG, Branches, images


def compressed():
    """A model whose trunk is frozen as stages of a backbone are."""
    torch.manual_seed(0)
    model = Branches()
    compress_model(model, copy.deepcopy(CONFIG), verbose=False)
    model.trunk.requires_grad_(False)
    return model


def run(model, training):
    """Run a model as a teacher runs, without gradients and with its trunk in evaluation mode."""
    model.train(training)
    model.trunk.eval()
    with torch.no_grad():
        model(images(0))


def loaded(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize('copied', [lambda model: model, copy.deepcopy])
def test_frozen_parts_of_a_model_in_training_learn_without_gradients(copied):
    model = compressed()
    copied = copied(model)
    model.eval()
    run(copied, training=True)
    assert copied.trunk.act_quant.is_settled and copied.trunk.weight_quant.is_settled


@pytest.mark.parametrize('copied', [lambda model: model, copy.deepcopy])
def test_nothing_learns_in_evaluation(copied):
    model = compressed()
    copied = copied(model)
    model.train()
    with pytest.raises(RuntimeError, match='trunk.act_quant was evaluated before its clip was'):
        run(copied, training=False)


def test_a_part_alone_belongs_to_no_model():
    for trunk in (copy.deepcopy(compressed().trunk), loaded(compressed()).trunk):
        assert trunk.act_quant.whole.training is None
        trunk.eval()(torch.rand(2, 8, 4, 4))  # with gradients, a frozen clip tells a frozen stage
        assert trunk.act_quant.is_settled


def test_a_part_does_not_keep_its_model():
    model = compressed()
    gone, trunk = weakref.ref(model), model.trunk
    del model
    gc.collect()
    assert gone() is None and trunk.act_quant.whole.training is None


def test_a_model_around_a_compressed_one_counts():
    from mmwcc.quantizers import settle_after_forward

    inner = compressed().eval()
    outer = nn.Sequential(inner)
    settle_after_forward(outer)
    outer.training = True
    with torch.no_grad():
        outer(images(0))
    assert inner.trunk.act_quant.is_settled
