"""What hung on a replaced layer, and models that a failing conversion leaves as they were."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from mmwcc.compression import compress_model, lean_activations, separate_convs
from mmwcc.inference import FusedInvertedResidual, fuse_inverted_residuals, to_integer
from mmwcc.layers import SeparableConv2d, WaveletCompressedConv2d
from mmwcc.model_tree.compressed import compressed_layers
from mmwcc.model_tree.replace import all_or_nothing, obstacle, replace_layers

WCC = dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5)
QUANTIZERS = dict(
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)
FULL = dict(pointwise=WCC, other=dict(type='mmwcc.QuantConv2d'), **QUANTIZERS)


def network(middle=None):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        middle or nn.Conv2d(8, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 2, 3, padding=1),
    )


def image():
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def compress(model, **changes):
    return compress_model(model, {**FULL, **changes}, verbose=False)


HOOKS = dict(
    forward=lambda layer, note: layer.register_forward_hook(lambda module, x, y: note(module)),
    forward_with_kwargs=lambda layer, note: layer.register_forward_hook(
        lambda module, x, kwargs, y: note(module), with_kwargs=True, always_call=True
    ),
    forward_pre=lambda layer, note: layer.register_forward_pre_hook(lambda module, x: note(module)),
    forward_pre_with_kwargs=lambda layer, note: layer.register_forward_pre_hook(
        lambda module, x, kwargs: note(module), with_kwargs=True
    ),
    full_backward=lambda layer, note: layer.register_full_backward_hook(
        lambda module, before, after: note(module)
    ),
    full_backward_pre=lambda layer, note: layer.register_full_backward_pre_hook(
        lambda module, after: note(module)
    ),
    backward=lambda layer, note: layer.register_backward_hook(
        lambda module, before, after: note(module)
    ),
    state_dict=lambda layer, note: layer._register_state_dict_hook(lambda module, *_: note(module)),
    state_dict_pre=lambda layer, note: layer.register_state_dict_pre_hook(
        lambda module, *_: note(module)
    ),
    load_state_dict_pre=lambda layer, note: layer._register_load_state_dict_pre_hook(
        lambda module, *_: note(module), with_module=True
    ),
    load_state_dict_post=lambda layer, note: layer.register_load_state_dict_post_hook(
        lambda module, keys: note(module)
    ),
)


def use(model):
    """Run everything that calls hooks."""
    model.zero_grad()
    model(image().requires_grad_()).sum().backward()
    model.load_state_dict(model.state_dict())


@pytest.mark.parametrize('kind', HOOKS)
@pytest.mark.parametrize('separate', [False, True])
def test_hooks_of_every_kind_get_the_new_layer_until_their_handle_removes_them(kind, separate):
    seen = []
    model = network(nn.Conv2d(8, 8, 3, padding=1) if separate else None)
    handle = HOOKS[kind](model[1], seen.append)
    use(model)
    assert set(seen) == {model[1]}
    calls = len(seen)
    seen.clear()
    compress(model, **(dict(separate=dict()) if separate else {}))
    assert type(model[1]) is (SeparableConv2d if separate else WaveletCompressedConv2d)
    use(model)
    assert len(seen) == calls and set(seen) == {model[1]}
    seen.clear()
    handle.remove()
    use(model)
    assert not seen


def test_a_hook_that_must_always_run_still_does():
    seen, model = [], network()
    model[1].register_forward_hook(lambda *_: seen.append('called'), always_call=True)
    compress(model)
    with pytest.raises(ValueError, match='in_channels=8'):
        model[1](torch.zeros(1, 3, 4, 4))
    assert seen == ['called']


def test_hooks_follow_through_integers_and_lean_activations():
    seen, model = [], network()

    def note(module, inputs, output):
        seen.append(type(module).__name__)

    handles = [model[place].register_forward_hook(note) for place in (1, 2)]
    compress(model, lean_activations=dict())
    seen.clear()  # the run on zeros that shows what reads the activations
    model(image())
    to_integer(model.eval(), verbose=False)
    model(image())
    assert seen == [
        'WaveletCompressedConv2d',
        'LeanReLU',
        'IntegerWaveletCompressedConv2d',
        'LeanReLU',
    ]
    for handle in handles:
        handle.remove()
    model(image())
    assert len(seen) == 4


def test_what_was_set_on_a_layer_and_on_its_parameters_stays():
    model = network()
    model[1].flops = 12
    model[1].register_buffer('seen', torch.ones(3), persistent=False)
    model[1].register_buffer('importance', torch.ones(8))
    model[1].register_parameter('scale', nn.Parameter(torch.ones(1)))
    model[1].weight.requires_grad_(False).optim_group = 'frozen'
    scale = model[1].scale
    compress(model)
    layer = model[1]
    assert type(layer) is WaveletCompressedConv2d and layer.flops == 12 and layer.scale is scale
    state = model.state_dict()
    assert {'1.importance', '1.scale'} <= state.keys() and '1.seen' not in state
    assert torch.equal(layer.seen, torch.ones(3))
    assert not layer.weight.requires_grad and layer.weight.optim_group == 'frozen'


def test_separated_kernels_train_as_the_dense_one_did():
    model = network(nn.Conv2d(8, 8, 3, padding=1))
    model[1].weight.requires_grad_(False).optim_group = 'frozen'
    separate_convs(model, verbose=False)
    for part in (model[1].depthwise_conv, model[1].pointwise_conv):
        assert not part.weight.requires_grad and part.weight.optim_group == 'frozen'
    assert model[1].pointwise_conv.bias.requires_grad


class Chain(nn.Module):
    """Convolutions in every container, one of them under several names and in two parents."""

    def __init__(self):
        super().__init__()
        shared = nn.Conv2d(8, 8, 1)
        self.items = nn.ModuleList([nn.Conv2d(3, 8, 3), shared])
        inner = nn.Sequential(shared, nn.Conv2d(8, 8, 1))
        self.named = nn.ModuleDict(dict(keys_=shared, inner=inner))
        self.last = nn.Conv2d(8, 2, 1)


def test_a_layer_is_replaced_under_all_its_names():
    model = Chain()
    compress_model(nn.DataParallel(model), FULL, verbose=False)
    assert type(model.items[1]) is WaveletCompressedConv2d
    assert model.items[1] is model.named['keys_'] is model.named['inner'][0]
    assert type(model.named['inner'][1]) is WaveletCompressedConv2d


class Listed(nn.Module):
    """A forward through a list, a dictionary and an attribute, none of them registered."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)
        self.third, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)
        self.early, self.late = [self.first, self.second], dict(third=self.third)
        vars(self)['end'] = self.last

    def forward(self, x):
        for layer in (*self.early, *self.late.values()):
            x = layer(x)
        return self.end(x)


def test_plain_lists_hold_the_new_layers_too():
    model = Listed()
    dense = list(model.children())
    with pytest.raises(ValueError, match='only_if_faster'), all_or_nothing(model):
        compress(model, keep_dense=['first'])
        compress(model, only_if_faster=dict(input_shape=(5, 8, 8)))
    assert [*model.early, *model.late.values(), model.end] == dense == list(model.children())
    compress(model, keep_dense=['first'])
    assert [*model.early, *model.late.values(), model.end] == list(model.children())
    model(image())
    assert all(layer.act_quant.initialized for layer in compressed_layers(model).values())
    assert len(compressed_layers(model)) == 3


@pytest.mark.parametrize(
    'changes',
    [
        dict(keep_dense=['first', r'named\.keys_']),
        dict(rules=[dict(pattern=r'named\.keys_', dense=True)]),
    ],
)
def test_any_name_of_a_shared_layer_keeps_it_dense(changes):
    model = Chain()
    compress_model(model, {**FULL, **changes}, verbose=False)
    assert type(model.items[1]) is nn.Conv2d
    assert type(model.named['inner'][1]) is WaveletCompressedConv2d


def pruned(conv):
    return prune.l1_unstructured(conv, 'weight', amount=0.5)


COMPUTED = dict(
    weight_norm=nn.utils.weight_norm,
    spectral_norm=nn.utils.spectral_norm,
    pruned=pruned,
    pruned_bias=lambda conv: prune.l1_unstructured(conv, 'bias', amount=0.5),
    parametrized_weight_norm=nn.utils.parametrizations.weight_norm,
    parametrized_spectral_norm=nn.utils.parametrizations.spectral_norm,
)


@pytest.mark.filterwarnings('ignore:.*weight_norm.*is deprecated')
@pytest.mark.parametrize('compute', COMPUTED.values(), ids=COMPUTED)
def test_a_layer_whose_weight_is_computed_stays(compute):
    """Its state too: reading a spectral norm in training mode changes it."""
    model = network(compute(nn.Conv2d(8, 8, 1)))
    layer, state = model[1], copy.deepcopy(model.state_dict())
    report = compress(model, separate=dict())
    assert model[1] is layer and report[1].after == 'dense' and report[1].weights == 64
    assert 'is computed (weight_norm, spectral_norm, pruning or a' in report[1].reason
    assert [entry.name for entry in report if entry.after == 'WaveletCompressedConv2d'] == ['3']
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in state.items() if key in after)
    use(model)


def test_a_pruned_layer_is_not_separated_nor_turned_into_integers():
    model = network(pruned(nn.Conv2d(8, 8, 3, padding=1)))
    report = separate_convs(model, keep_dense=[], verbose=False)
    assert [layer.name for layer in report if not layer.reason] == ['0', '4']
    assert 'pruning' in report[1].reason
    model = network()
    compress(model)
    model(image())
    pruned(model[1])
    report = to_integer(model.eval(), verbose=False)
    assert type(model[1]) is WaveletCompressedConv2d and 'weight is computed' in report[1].reason
    assert report[2].after == 'IntegerWaveletCompressedConv2d'
    model(image())


def test_other_obstacles():
    assert obstacle(nn.Conv2d(3, 3, 1)) == ''
    conv = nn.Conv2d(3, 3, 1)
    conv.forward = lambda x: x
    assert obstacle(conv) == 'its forward was replaced on the object'
    assert obstacle(nn.LazyConv2d(3, 1)) == 'lazy: it has no weight before the first run'
    conv = nn.Conv2d(3, 3, 1)
    conv.adapter = nn.Linear(3, 3)
    assert obstacle(conv) == 'it holds a module, adapter'
    model = network(nn.LazyConv2d(8, 1))
    assert compress(model)[1].reason.startswith('lazy') and model(image()).shape == (1, 2, 16, 16)


def test_a_tied_or_watched_weight_is_not_separated():
    model = nn.Sequential(*(nn.Conv2d(8, 8, 3) for _ in range(4)))
    model[1].weight = model[2].weight
    model[3].weight.register_hook(lambda grad: grad)
    reasons = [layer.reason for layer in separate_convs(model, keep_dense=[], verbose=False)]
    assert reasons == [
        '',
        *['its weight is shared with another layer'] * 2,
        'a hook waits for the gradient of its weight',
    ]
    assert model[1].weight is model[2].weight
    pair = nn.Sequential(*(nn.Conv2d(8, 8, 1) for _ in range(4)))
    pair[1].weight = pair[2].weight
    compress(pair)
    assert type(pair[1]) is WaveletCompressedConv2d and pair[1].weight is pair[2].weight


def snapshot(model):
    """Return modules by name, flags, and copies of all tensors."""
    return (
        [
            (name, id(module), module.training)
            for name, module in model.named_modules(remove_duplicate=False)
        ],
        [
            (name, id(parameter), parameter.requires_grad)
            for name, parameter in model.named_parameters()
        ],
        {key: value.clone() for key, value in model.state_dict().items()},
    )


def trained():
    model = network()
    compress(model)
    model(image())
    return model.eval()


def with_nan(model, place):
    model[place].weight.data[0] = float('nan')
    return model


def blocks():
    """Two inverted residual blocks, the second with statistics that do not fit."""
    model = nn.Sequential(
        *(
            nn.Sequential(
                nn.Conv2d(4, 8, 1),
                nn.BatchNorm2d(8),
                nn.ReLU6(),
                nn.Conv2d(8, 8, 3, padding=1, groups=8),
                nn.BatchNorm2d(8),
                nn.ReLU6(),
                nn.Conv2d(8, 4, 1),
                nn.BatchNorm2d(4),
            )
            for _ in range(2)
        )
    )
    compress_model(model, dict(pointwise=WCC, keep_dense=[]), verbose=False)
    model[1][7].running_var = torch.ones(5)
    return model.eval()


def plain():
    model = network(nn.Conv2d(8, 8, 3, padding=1))
    model[0].weight.requires_grad_(False)
    model[2].eval()
    return model


def compressing(**changes):
    return lambda model: compress(model, **changes)


ELSEWHERE = dict(input_shape=(5, 8, 8))
FAILURES = dict(
    compress=(
        plain,
        compressing(keep_dense=[], rules=[dict(pattern='4', **WCC)]),
        'cannot become mmwcc.WaveletCompressedConv2d',
    ),
    compress_after_separation=(
        plain,
        compressing(
            separate=dict(), keep_dense=[], rules=[dict(pattern=r'4\.depthwise_conv', **WCC)]
        ),
        'cannot become mmwcc.WaveletCompressedConv2d',
    ),
    lean_after_compression=(
        plain,
        compressing(separate=dict(), integer=True, lean_activations=ELSEWHERE),
        'lean_activations: Sequential must run',
    ),
    faster_after_separation=(
        plain,
        compressing(separate=dict(), only_if_faster=ELSEWHERE),
        'only_if_faster: Sequential must run',
    ),
    integers_after_compression=(
        plain,
        compressing(separate=dict(), act_quant=None, integer=True),
        'integer=True needs 1x1 layers',
    ),
    nothing_compressed=(plain, compressing(pointwise=None, other=None), 'must change a layer'),
    separate=(
        lambda: with_nan(plain(), 4),
        lambda model: separate_convs(model, keep_dense=[], verbose=False),
        'svd',
    ),
    lean=(trained, lambda model: lean_activations(model, **ELSEWHERE), 'Sequential must run'),
    integers=(
        lambda: with_nan(trained(), 3),
        lambda model: to_integer(model, verbose=False),
        'must be numbers',
    ),
    fuse=(
        blocks,
        lambda model: fuse_inverted_residuals(model, verbose=False),
        'must match the size',
    ),
)


@pytest.mark.parametrize('build, convert, message', FAILURES.values(), ids=FAILURES)
def test_a_conversion_that_fails_leaves_the_model_as_it_was(build, convert, message):
    seen, model = [], build()
    if type(model[1]) is not nn.Sequential:
        HOOKS['load_state_dict_pre'](model[1], seen.append)
    modules, parameters, state = snapshot(model)
    with pytest.raises((ValueError, RuntimeError), match=message):
        convert(model)
    after = snapshot(model)
    assert after[:2] == (modules, parameters) and after[2].keys() == state.keys()
    for key, value in state.items():
        torch.testing.assert_close(after[2][key], value, rtol=0, atol=0, equal_nan=True)
    model.load_state_dict(state)
    assert all(module is model[1] for module in seen)


def test_the_layers_of_a_failed_block_are_back_in_their_places():
    model = network()
    layer, seen = model[1], []
    handle = HOOKS['load_state_dict_pre'](layer, seen.append)
    with pytest.raises(KeyboardInterrupt), all_or_nothing(model):
        replace_layers(model, {layer: nn.Identity()})
        raise KeyboardInterrupt
    model.load_state_dict(model.state_dict())
    handle.remove()
    model.load_state_dict(model.state_dict())
    assert model[1] is layer and seen == [layer] and not compressed_layers(model)


def test_hooks_of_a_block_are_carried_and_hooks_inside_keep_it_apart():
    seen, model = [], blocks()[:1].eval()
    model[0].register_forward_hook(lambda module, *_: seen.append(type(module)))
    handle = model[0][4].register_forward_hook(lambda *_: None)
    report = fuse_inverted_residuals(model, verbose=False)
    assert not report[0].fused and report[0].reason == 'hooks on 4, which would not run'
    handle.remove()
    assert fuse_inverted_residuals(model, verbose=False)[0].fused
    model(torch.rand(1, 4, 8, 8))
    assert seen == [FusedInvertedResidual]


def test_convolutions_that_compute_something_else_are_not_fused():

    class Doubling(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    model = blocks()[:1].eval()
    model[0][3] = Doubling(8, 8, 3, padding=1, groups=8).eval()
    assert not fuse_inverted_residuals(model, verbose=False)
    model[0][3] = pruned(nn.Conv2d(8, 8, 3, padding=1, groups=8)).eval()
    assert not fuse_inverted_residuals(model, verbose=False)
