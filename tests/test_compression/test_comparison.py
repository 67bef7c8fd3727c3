"""What a checkpoint and a model compress, compared by keys, shapes and records."""

import torch
from torch import nn

from mmwcc.compression import compare, compress_model, layer_records
from mmwcc.inference import to_integer
from mmwcc.model_tree import LayerState

COMPRESSION = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
    keep_dense=['0'],
)
FLOAT = dict(COMPRESSION, weight_quant=None, act_quant=None)


def network(compression=COMPRESSION):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1))
    if compression:
        compress_model(model, compression, verbose=False)
        model(torch.randn(1, 3, 16, 16))
    return model


def without(part):
    return {**COMPRESSION, part: None}


def fit(theirs, ours):
    """Compare the checkpoint of one network with another network."""
    return compare(theirs.state_dict(), ours, layer_records(theirs))


def test_a_checkpoint_fits_its_own_model():
    found = fit(network(), network())
    assert found.in_checkpoint == {'1', '1.weight_quant', '1.act_quant'}
    assert list(found.layers) == ['1']
    assert not (found.only_in_checkpoint or found.only_in_model or found.shapes or found.states)


def test_what_one_side_lacks():
    assert fit(network(None), network()).only_in_model == {'1'}
    found = fit(network(), network(None))
    assert found.only_in_checkpoint == found.in_checkpoint and not found.layers
    assert fit(network(without('act_quant')), network()).only_in_model == {'1.act_quant'}
    assert fit(network(), network(without('act_quant'))).only_in_checkpoint == {'1.act_quant'}


def test_layers_without_quantizers_show_in_records_alone():
    dense = network(None).state_dict()
    assert compare(dense, network(FLOAT), recorded={}).only_in_model == {'1'}
    assert compare(dense, network(FLOAT)).only_in_model == set()
    assert fit(network(FLOAT), network(FLOAT)).only_in_model == set()
    # Quantizers in the weights speak for themselves.
    assert compare(network().state_dict(), network(), recorded={}).only_in_model == set()


def test_integers_on_one_side():
    integer = network()
    to_integer(integer.eval(), verbose=False)
    assert fit(network(), integer).integers_only_in_model == {'1'}
    assert fit(integer, network()).integers_only_in_checkpoint == {'1'}


def test_states_are_those_of_the_moment():
    theirs = network()
    pointwise = dict(COMPRESSION['pointwise'], keep_ratio=0.25)
    model = network(dict(COMPRESSION, pointwise=pointwise))
    assert fit(theirs, model).states == [('1', 'keep_ratio', 0.5, 0.25)]
    scheduled = {'1': LayerState.of(model[1]).under(dict(keep_ratio=0.5))}
    found = compare(theirs.state_dict(), model, layer_records(theirs), scheduled)
    assert found.states == []


def test_shapes():
    weights = network().state_dict()
    weights['1.weight'] = torch.zeros(6, 8, 1, 1)
    assert compare(weights, network()).shapes == {'1.weight': ((6, 8, 1, 1), (4, 8, 1, 1))}


class Levels(nn.Module):
    """A head with one branch for each of two levels, which share their convolution, as RTMDet's."""

    def __init__(self, share=True):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)) for _ in range(2)
        )
        if share:
            self.branches[1][0] = self.branches[0][0]

    def forward(self, x):
        return [branch(self.stem(x)) for branch in self.branches]


def levels(compression, share=True):
    model = Levels(share)
    if compression:
        compress_model(model, dict(compression, keep_dense=['stem']), verbose=False)
        model(torch.randn(1, 3, 16, 16))
    return model


def test_shared_layers_fit_their_own_checkpoint():
    for compression in (COMPRESSION, FLOAT):
        model = levels(compression)
        assert set(layer_records(model)) == {'branches.0.0', 'branches.1.0'}
        found = fit(model, levels(compression))
        assert set(found.layers) == {'branches.0.0'}
        assert not (found.only_in_checkpoint or found.only_in_model or found.states)
        # Stamps of mmwcc 0.1 list a shared layer under its first name only.
        old = {'branches.0.0': layer_records(model)['branches.0.0']}
        found = compare(model.state_dict(), levels(compression), old)
        assert not (found.only_in_checkpoint or found.only_in_model)


def test_shared_layers_differ_once():
    found = fit(levels(COMPRESSION), levels(without('act_quant')))
    assert found.only_in_checkpoint == {'branches.0.0.act_quant'}
    found = fit(levels(without('act_quant')), levels(COMPRESSION))
    assert found.only_in_model == {'branches.0.0.act_quant'}
    assert fit(levels(None), levels(FLOAT)).only_in_model == {'branches.0.0'}


def test_shared_integer_layers_fit_their_own_checkpoint():
    integer = levels(COMPRESSION)
    to_integer(integer.eval(), verbose=False)
    found = fit(integer, integer)
    assert not (found.integers_only_in_checkpoint or found.integers_only_in_model)
    assert fit(integer, levels(COMPRESSION)).integers_only_in_checkpoint == {'branches.0.0'}
