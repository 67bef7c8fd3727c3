"""Sharing out a budget: against trying everything, on random layers."""

import itertools
import random

import pytest
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.model_tree.compressed import compressed_layers
from mmwcc.post_training import (
    Candidate,
    Choice,
    Grid,
    LayerSensitivity,
    allocate,
    allocated_compression,
    find_candidates,
)

COMPRESSION = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.25, levels=2),
    other=dict(type='mmwcc.QuantConv2d'),
    keep_dense=[],
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
    rules=[dict(pattern='0', act_quant=dict(bits=4))],
)


def random_layers(seed, layers=5, options=6):
    rng = random.Random(seed)
    return {
        f'layer{i}': [
            Candidate(Choice(8, j), rng.randint(1, 40), rng.random() ** 3) for j in range(options)
        ]
        for i in range(layers)
    }


def best_of_all(candidates, budget):
    every = itertools.product(*candidates.values())
    return min(
        (
            sum(one.divergence for one in choice)
            for choice in every
            if sum(one.bops for one in choice) <= budget
        ),
        default=None,
    )


@pytest.mark.parametrize('seed', range(30))
def test_close_to_the_best_of_all(seed):
    candidates = random_layers(seed)
    cheapest = sum(min(one.bops for one in options) for options in candidates.values())
    for budget in (cheapest, cheapest + 7, cheapest + 31, cheapest + 60, 1000):
        best, found = best_of_all(candidates, budget), allocate(candidates, budget)
        assert found.bops <= budget
        assert found.bound <= best + 1e-12 <= found.divergence + 2e-12
        # What a fraction of one step can save is all that is lost.
        assert found.divergence - best <= max(
            one.divergence for options in candidates.values() for one in options
        )
    assert found.divergence == pytest.approx(best)  # with a budget for everything


def test_nearly_always_the_best_of_all():
    hits = 0
    for seed in range(30):
        candidates = random_layers(seed)
        hits += allocate(candidates, 60).divergence == pytest.approx(best_of_all(candidates, 60))
    assert hits >= 15


def test_by_hand():
    # Per bit operation, b's first step saves 0.5, a's 0.3 and b's second 0.1.
    a = [Candidate(Choice(8, 4), 1, 1.0), Candidate(Choice(8, 8), 3, 0.4)]
    b = [
        Candidate(Choice(8, 4), 1, 1.0),
        Candidate(Choice(8, 6), 2, 0.5),
        Candidate(Choice(8, 8), 4, 0.3),
    ]
    bits = {
        budget: tuple(
            one.choice.act_bits for one in allocate(dict(a=a, b=b), budget).layers.values()
        )
        for budget in (2, 3, 5, 6, 7)
    }
    assert bits == {2: (4, 4), 3: (4, 6), 5: (8, 6), 6: (8, 6), 7: (8, 8)}
    assert allocate(dict(a=a, b=b), 6).bound == pytest.approx(0.9 - 0.1)
    assert allocate(dict(a=a, b=b), 7).bound == pytest.approx(0.7)


def test_a_candidate_off_the_hull_fills_what_is_left():
    options = [
        Candidate(Choice(8, 2), 0, 1.0),
        Candidate(Choice(8, 4), 5, 0.9),
        Candidate(Choice(8, 8), 10, 0.0),
    ]
    assert allocate(dict(a=options), 7).layers['a'].choice.act_bits == 4


def test_equal_and_dominated_candidates_do_no_harm():
    options = [
        Candidate(Choice(8, bits), bops, damage)
        for bits, bops, damage in (
            (2, 1, 0.5),
            (3, 1, 0.5),
            (4, 1, 0.7),
            (5, 2, 0.5),
            (6, 3, 0.1),
            (7, 3, 0.2),
        )
    ]
    assert [allocate(dict(a=options), budget).divergence for budget in (1, 2, 3)] == [0.5, 0.5, 0.1]


@pytest.mark.parametrize('candidates', [random_layers(0), {}])
def test_too_small_a_budget(candidates):
    with pytest.raises(
        ValueError, match='budget must be at least what the network costs with the cheapest'
    ):
        allocate(candidates, -1)


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1))


LAYERS = [
    LayerSensitivity('0', {8: 0.0, 4: 0.5}, {8: 0.1, 4: 0.2}),
    LayerSensitivity('1', {8: 0.0, 4: 0.5}, {8: 0.1, 4: 0.2}, {8: 0.3}, {0.5: 1.0, 0.25: 2.0}),
]


def test_candidates_have_the_price_of_what_they_become(network):
    pytest.importorskip('mmengine')
    from mmwcc.cost import count_cost

    compress_model(network, COMPRESSION, verbose=False)
    candidates = find_candidates(LAYERS, count_cost(network, (13, 10)))
    assert [len(options) for options in candidates.values()] == [4, 8]
    macs = 13 * 10 * 8 * 3 * 9
    assert candidates['0'][1] == Candidate(Choice(8, 4), macs * 8 * 4, 0.2)
    prices = {one.choice: one.bops for one in candidates['1']}
    assert prices[Choice(4, 8)] == 13 * 10 * 64 * 32  # without wavelets
    transforms = 8 * (8 + 8) * 4 * 16 * 12 * (1 + 1 / 4)  # two levels on the map padded to 16x12
    assert prices[Choice(8, 8, 0.25)] == 48 * 64 * 64 + transforms
    only = find_candidates(LAYERS, count_cost(network, (13, 10)), Grid((8,), (8, 4), (0.25,)))
    assert [one.choice for one in only['1']] == [Choice(8, 8), Choice(8, 4), Choice(8, 8, 0.25)]


def test_candidates_must_exist(network):
    pytest.importorskip('mmengine')
    from mmwcc.cost import count_cost

    cost = count_cost(network, (8, 8))
    with pytest.raises(ValueError, match='got none for elsewhere. Count the same model'):
        find_candidates([LayerSensitivity('elsewhere', {8: 0.0}, {8: 0.0})], cost)
    with pytest.raises(ValueError, match='grid must leave every layer a choice, got none for 0'):
        find_candidates(LAYERS, cost, Grid(weight_bits=(7,)))


def test_the_dictionary_builds_what_was_allocated(network):
    candidates = {
        '0': [Candidate(Choice(4, 8), 1, 0)],
        '1': [Candidate(Choice(8, 6, 0.125), 1, 0)],
        '2': [Candidate(Choice(8, 5), 1, 0)],
    }
    compression = allocated_compression(COMPRESSION, allocate(candidates, 3))
    assert len(COMPRESSION['rules']) == 1
    compress_model(network, compression, verbose=False)
    layers = compressed_layers(network)
    assert [type(layer).__name__ for layer in layers.values()] == [
        'QuantConv2d',
        'WaveletCompressedConv2d',
        'QuantConv2d',
    ]
    assert [(layer.weight_quant.bits, layer.act_quant.bits) for layer in layers.values()] == [
        (4, 8),
        (8, 6),
        (8, 5),
    ]
    assert layers['1'].keep_ratio == 0.125 and layers['1'].levels == 2


def test_what_is_not_quantized_stays_so():
    compression = allocated_compression(
        {}, allocate(dict(a=[Candidate(Choice(32, 32, 0.5), 1, 0)]), 1)
    )
    assert compression == dict(rules=[dict(pattern='a', keep_ratio=0.5)])


def test_layers_without_a_choice_are_paid_from_the_budget():
    candidates = random_layers(0)
    with_fixed, without = allocate(candidates, 60, fixed=20), allocate(candidates, 40)
    assert with_fixed.layers == without.layers and with_fixed.bound == without.bound
    assert with_fixed.bops == without.bops + 20 <= 60
    with pytest.raises(ValueError, match='got 60'):
        allocate(candidates, 60, fixed=60)


def test_table():
    text = str(allocate({'head.conv': [Candidate(Choice(8, 32, 0.5), 2e6, 0.25)]}, 3e6))
    assert text.splitlines()[2].split() == ['head.conv', '8', '-', '0.5', '2.000', '0.250000']
    assert text.endswith(
        '0.002 of 0.003 G BOPs, predicted divergence 0.25000 (no choice below 0.25000)'
    )
