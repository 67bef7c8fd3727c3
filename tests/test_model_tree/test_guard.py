"""Guards on layers: when they refuse evaluation, and what lifts them."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mmwcc.model_tree import LAYERS, guard, guards_off, lift_guards, note_loaded


class Pair(nn.Module):
    """Two layers that several methods call."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.two(self.one(x))

    def loss(self, x):
        return self(x).sum()


def batch():
    return torch.ones(3, 2)


def guarded(message=f'not {LAYERS}', **kwargs):
    model = Pair().eval()
    guard(model, dict(one=model.one, two=model.two), message, **kwargs)
    note_loaded(model)
    return model


def refuses(call, message='^not one, two$'):
    for _ in range(2):
        with pytest.raises(RuntimeError, match=message):
            call(batch())


def hooks(model):
    return [hook for module in model.modules() for hook in module._forward_pre_hooks.values()]


def test_every_method_that_evaluates_is_refused():
    model = guarded()
    refuses(model)
    refuses(model.loss)
    refuses(model.one)
    with guards_off(model):
        model(batch())
    refuses(model)
    refuses(copy.deepcopy(model))


@pytest.mark.parametrize('method', ['forward', 'loss', '__call__'])
def test_every_method_that_trains_lifts_it(method):
    model = guarded()
    getattr(model.train(), method)(batch())
    assert not hooks(model)
    model.eval()(batch())


def test_frozen_stages_run_in_training():
    model = guarded().train()
    model.one.eval().requires_grad_(False)
    model.loss(batch())
    assert not hooks(model)


def test_training_mode_without_gradients_is_no_training():
    model = guarded().train()
    with torch.no_grad():
        model(batch())
    refuses(model.eval())


def step(model):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model.train().loss(batch()).backward()
    optimizer.step()


def test_averages_of_trained_weights_are_evaluated():
    model = guarded()
    average, teacher = AveragedModel(model, use_buffers=True), copy.deepcopy(model)
    refuses(average.eval())
    step(model)
    average.update_parameters(model)
    average(batch())
    refuses(teacher.eval())
    for mine, trained in zip(teacher.parameters(), model.parameters(), strict=True):
        mine.data.copy_(trained)
    teacher(batch())
    assert not hooks(average) and not hooks(teacher)


def test_another_dtype_is_no_training():
    for convert in (nn.Module.double, nn.Module.bfloat16, nn.Module.half):
        model = convert(guarded())
        with pytest.raises(RuntimeError, match='^not one, two$'):
            model(batch().to(model.one.weight.dtype))
        refuses(model.float())


def test_a_later_guard_joins():
    model = guarded()
    guard(model, dict(two=model.two), 'later')
    refuses(model, '^not one$')
    refuses(model.two, '^later$')


def test_a_guard_may_warn_once():
    model = guarded('look', refuses=False)
    with pytest.warns(UserWarning, match='^look$'):
        model(batch())
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        model(batch())


def test_guards_of_parts_are_lifted_and_other_hooks_stay():
    model, seen = guarded(), []
    model.one.register_forward_pre_hook(lambda *_: seen.append(1))
    lift_guards(model)
    model(batch())
    assert seen == [1]


@pytest.mark.parametrize('fullgraph', [False, True])
def test_compiled_models_are_guarded(fullgraph):
    model = guarded()
    compiled = torch.compile(model, backend='eager', fullgraph=fullgraph)
    refuses(compiled, '^RuntimeError: not one, two\n')
    compiled.train()(batch())
    compiled.eval()(batch())
    model(batch())
    assert not hooks(model)
