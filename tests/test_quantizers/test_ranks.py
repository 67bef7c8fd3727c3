"""Quantizers on two ranks: nothing waits for a rank that does not come, and all ranks learn the
same.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.fsdp

from mmwcc.post_training import calibrate

from .rank_scenarios import RANKS, clips, compressed, images

needs_fully_shard = pytest.mark.skipif(
    not hasattr(torch.distributed.fsdp, 'fully_shard'), reason='older torch has no fully_shard here'
)


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    subprocess.run(
        [sys.executable, '-W', 'ignore', Path(__file__).with_name('rank_scenarios.py'), folder],
        check=True,
        timeout=300,
    )
    return [torch.load(folder / f'rank{rank}.pth') for rank in range(RANKS)]


@pytest.fixture
def outcome(outcomes, request):
    results = [results[request.param] for results in outcomes]
    for rank, result in enumerate(results):
        assert not isinstance(result, str), f'rank {rank}: {result}'
    return results


def of(name):
    return pytest.mark.parametrize('outcome', [name], indirect=True)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@of('evaluation_of_one_rank')
def test_one_rank_may_evaluate_alone(outcome):
    assert_equal(*outcome)
    assert all(
        value == 1 for key, value in outcome[0].items() if key.endswith('weight_quant.initialized')
    )


@of('branch_of_one_rank')
def test_one_rank_may_enter_a_branch_alone(outcome):
    for zero, one in zip(*outcome, strict=True):
        assert_equal(zero, one)
        assert (
            zero['branch.act_quant.initialized'] == 1
            and zero['branch.weight_quant.initialized'] == 1
        )


@of('joint_clips')
def test_ranks_learn_from_what_all_have_seen(outcome):
    for zero, one in zip(*outcome, strict=True):
        assert_equal(zero, one)
    trained, calibrated = outcome[0]
    alone, long = compressed(), compressed().eval()
    alone(torch.cat([images(rank) for rank in range(RANKS)]))
    calibrate(long, [images(rank, step) for step in range(2) for rank in range(RANKS)])
    for learned, expected in ((trained, clips(alone)), (calibrated, clips(long))):
        # The first layer that quantizes sees the same values. Later ones see what earlier ones
        # rounded with the clips of one rank, so that theirs may differ by a step or two of the 128
        # among which they are chosen.
        first = {key: value for key, value in expected.items() if key.startswith('trunk')}
        assert_equal({key: learned[key] for key in first}, first)
        for key, value in expected.items():
            torch.testing.assert_close(
                learned[key], value, rtol=0.12 if key.endswith('clip_alpha') else 0, atol=0
            )


@of('layers_without_a_model')
def test_layers_that_nothing_settles_say_so(outcome):
    for (warned, silent), _ in outcome:
        assert len(warned) == 2 and all(
            'its clip was learned on this rank alone' in text for text in warned
        )
        assert not silent
    assert_equal(outcome[0][1], outcome[1][1])


@of('branch_of_one_rank_with_clips_of_channels')
def test_ranks_agree_on_the_clips_of_channels(outcome):
    for zero, one in zip(*outcome, strict=True):
        assert_equal(zero, one)
    alone = compressed(per_channel=True)
    alone(torch.cat([images(rank) for rank in range(RANKS)]))
    first = outcome[0][0]
    for name in ('trunk', 'branch'):
        expected = clips(alone)[f'{name}.weight_quant.clip_alpha']
        assert expected.shape == (8,)
        # One step of training lies between.
        torch.testing.assert_close(
            first[f'{name}.weight_quant.clip_alpha'], expected, rtol=0.05, atol=0
        )


@needs_fully_shard
@of('sharded_with_clips_of_channels')
def test_fsdp_splits_the_clips_of_channels(outcome):
    assert_sharded(outcome)
    assert outcome[0][0]['trunk.weight_quant.clip_alpha'].shape == (8,)


@needs_fully_shard
@of('sharded_rows_by_energy')
def test_rows_by_energy_train_as_a_whole_and_split(outcome):
    for zero, one in zip(*outcome, strict=True):
        assert_equal(zero, one)
    replicated, sharded = outcome[0]
    assert_equal(replicated, sharded)
    clips = replicated['trunk.act_quant.clip_alpha']
    assert clips.shape == (7,) and clips.unique().numel() > 1


@of('compressed_twice')
def test_a_model_settles_as_a_whole_whatever_was_compressed_before(outcome):
    assert_equal(*outcome)
    assert outcome[0]['branch.1.act_quant.initialized'] == 2


@of('parts_wrapped_one_by_one')
def test_a_model_whose_forward_nobody_calls_says_so(outcome):
    for messages in outcome:
        assert (
            sum('its clip was learned on this rank alone' in text for text in messages) == 2
        )  # of two quantizers


@needs_fully_shard
@of('sharded')
def test_fsdp_trains_as_ddp(outcome):
    assert_sharded(outcome)


def assert_sharded(outcome):
    for replicated, sharded in outcome:
        assert replicated.keys() == sharded.keys()
        for key, value in replicated.items():
            torch.testing.assert_close(sharded[key], value, rtol=1e-5, atol=1e-6)
    assert replicated['trunk.act_quant.clip_alpha'] != compressed().trunk.act_quant.initial_clip
