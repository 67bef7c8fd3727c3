"""Reading ladders, and the order of their points."""

import pytest

from mmwcc.ladder import Point, read_ladder
from mmwcc.utils import LaunchError


def names(steps):
    return [step.name for step in steps]


def test_points_and_recipe(write, tmp_path):
    ladder = read_ladder(write())
    assert (
        list(ladder.points) == ['dense', 'quant', 'wcc', 'ptq']
        and ladder.config == tmp_path / 'dense.py'
    )
    assert ladder.points['wcc'] == Point('wcc', compression='wcc_w8a8_k25', start='quant')
    assert ladder.recipe == dict(optim_wrapper=dict(optimizer=dict(lr=0.05)))
    changed = read_ladder(
        write(), {'recipe.optim_wrapper.optimizer.lr': 0.2, 'checkpoint': 'https://x/y.pth'}
    )
    assert (
        changed.recipe['optim_wrapper']['optimizer']['lr'] == 0.2
        and changed.checkpoint == 'https://x/y.pth'
    )


def test_a_ladder_inherits_the_points_of_another(write, tmp_path):
    write()
    (tmp_path / 'short.py').write_text(
        "_base_ = './ladder.py'\nrecipe = dict(train_cfg=dict(max_iters=2))\n"
    )
    short = read_ladder(tmp_path / 'short.py')
    assert list(short.points) == ['dense', 'quant', 'wcc', 'ptq']
    assert short.recipe == dict(
        optim_wrapper=dict(optimizer=dict(lr=0.05)), train_cfg=dict(max_iters=2)
    )


def test_order_follows_the_starts(write):
    reversed_order = write(add='points = points[::-1]\n')
    assert names(read_ladder(reversed_order).steps()) == [
        'ptq',
        'quant_seed0',
        'wcc_seed0',
        'dense',
    ]


def test_seeds_are_for_what_is_trained(write):
    steps = read_ladder(write(("dict(name='ptq',", "dict(name='ptq', start='quant',"))).steps(
        (1, 2)
    )
    assert names(steps) == [
        'dense',
        'quant_seed1',
        'wcc_seed1',
        'ptq_seed1',
        'quant_seed2',
        'wcc_seed2',
        'ptq_seed2',
    ]


@pytest.mark.parametrize(
    ('only', 'expected'),
    [
        (['wcc'], ['quant_seed0', 'wcc_seed0']),
        (['few'], ['dense', 'quant_seed0']),
        (['?tq'], ['ptq']),
        (['*c*', 'dense'], ['dense', 'quant_seed0', 'wcc_seed0']),
    ],
)
def test_only(write, only, expected):
    assert names(read_ladder(write()).steps(only=only)) == expected


def test_only_must_match(write):
    with pytest.raises(
        ValueError, match='--only wc matches no point. Points: dense, quant, wcc, ptq. Tags: few'
    ):
        read_ladder(write()).steps(only=['dense', 'wc'])


def test_distillation_waits_for_its_teacher(write):
    ladder = read_ladder(
        write(
            (
                "dict(name='dense', train=False",
                "dict(name='student', distillation=dict("
                "checkpoint='teacher')),\n    dict(name='teacher'), dict(name='dense', train=False",
            )
        )
    )
    assert names(ladder.steps(only=['student'])) == ['teacher_seed0', 'student_seed0']
    assert ladder.origins(Point('a', distillation=dict(weight=1.0))) == [ladder.checkpoint] * 2


@pytest.mark.parametrize(
    ('old', 'new', 'error', 'message'),
    [
        (
            "config = 'dense.py'",
            "config = 'other.py'",
            LaunchError,
            'names the config other.py, but there is no',
        ),
        ('recipe =', 'receipt =', ValueError, "unknown key 'receipt'. Did you mean 'recipe'"),
        ('points =', '_points =', ValueError, "must have 'points'"),
        ("name='quant'", "name='wcc'", ValueError, "names of points must differ, got 'wcc' twice"),
        ("name='quant'", "name='a/b'", ValueError, "letters, digits, - and _, got 'a/b'"),
        ("dict(name='quant',", 'dict(', ValueError, 'letters, digits, - and _, got None'),
        (
            "start='quant'",
            "start='quants'",
            ValueError,
            "point wcc must start from another point or a checkpoint .*got 'quants'. Did you mean "
            "'quant'",
        ),
        ("start='quant'", "begin='quant'", ValueError, "point wcc has an unknown key 'begin'"),
        (
            "compression='quant_w8a8'",
            "start='wcc'",
            ValueError,
            'points must not start from each other, got quant <- wcc <- quant',
        ),
        ("compression='quant_w8a8'", "start='quant'", ValueError, 'got quant <- quant'),
        (
            "compression='quant_w8a8'",
            "distillation=dict(checkpoint='wcc')",
            ValueError,
            'got quant <- wcc <- quant',
        ),
        (
            "tags=['few']),\n    dict(name='quant'",
            "schedule=dict(keep_ratio=dict())),\n    dict(name='quant'",
            ValueError,
            'point dense must be trained to have a schedule',
        ),
        (
            "compression='quant_w8a8'",
            'calibration=dict(images=1)',
            ValueError,
            'point quant must be compressed and have train=False to be calibrated',
        ),
    ],
)
def test_refused(write, old, new, error, message):
    with pytest.raises(error, match=message):
        read_ladder(write((old, new)))


def test_points_are_dicts(write, tmp_path):
    with pytest.raises(TypeError, match="a point must be a dict, got 'wcc'"):
        read_ladder(write(add="points = ['wcc']\n"))
    with pytest.raises(LaunchError, match='nothing.py does not exist'):
        read_ladder(tmp_path / 'nothing.py')


@pytest.mark.parametrize(
    'checkpoint', ['work/2024-05-01T12:30:00/net.safetensors', r'C:\\net.pth', 'https://host/net']
)
def test_what_a_ladder_may_start_from(write, checkpoint):
    ladder = read_ladder(write(), {'checkpoint': checkpoint})
    assert ladder.origins(ladder.points['quant']) == [checkpoint]
