"""Schedules: values by hand, the laws of a ceiling, and every refusal."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmwcc.compression import schedule as schedule_module
from mmwcc.compression.schedule import QUANTITIES, StepSchedule
from mmwcc.compression.schedule_config import build_schedule

SMOOTH = ['linear', 'cosine', 'exponential']


def smooth(kind, quantity='keep_ratio', **changes):
    start, stop = (1.0, 0.25) if quantity == 'keep_ratio' else (32, 4)
    return build_schedule(
        quantity, {**dict(type=kind, begin=10, end=20, start=start, stop=stop), **changes}
    )


def test_steps():
    schedule = build_schedule(
        'keep_ratio', dict(type='step', steps=[(0, 1.0), (2000, 0.5), (4000, 0.25)])
    )
    assert [schedule.value_at(t) for t in (0, 1999, 2000, 3999, 4000, 10**6)] == [
        1.0,
        1.0,
        0.5,
        0.5,
        0.25,
        0.25,
    ]
    assert (schedule.end, schedule.final, schedule.ramp) == (4000, 0.25, 0)


@pytest.mark.parametrize(
    ('kind', 'middle'), [('linear', 0.625), ('cosine', 0.625), ('exponential', 0.5)]
)
def test_smooth_values(kind, middle):
    schedule = smooth(kind)
    assert [schedule.value_at(t) for t in (0, 10, 20, 99)] == [1.0, 1.0, 0.25, 0.25]
    assert schedule.value_at(15) == pytest.approx(middle, rel=1e-12)
    assert (schedule.end, schedule.final, schedule.ramp) == (20, 0.25, 0.75)


def test_quarters_tell_the_curves_apart():
    at_quarter = {kind: smooth(kind, end=14).value_at(11) for kind in SMOOTH}
    assert at_quarter == pytest.approx(
        dict(linear=0.8125, cosine=0.25 + 0.75 * (2 + 2**0.5) / 4, exponential=0.25**0.25)
    )


def test_interval_holds_values():
    every, third = smooth('linear', end=22), smooth('linear', end=22, interval=3)
    assert [third.value_at(t) for t in range(10, 22)] == [
        every.value_at(10 + t // 3 * 3) for t in range(12)
    ]
    assert third.value_at(22) == 0.25


def test_bits_jump_over_widths_that_do_not_exist():
    assert [smooth('linear', 'act_bits', stop=8, begin=0, end=4).value_at(t) for t in range(5)] == [
        32,
        32,
        32,
        14,
        8,
    ]
    assert (
        smooth('linear', 'act_bits', start=16, stop=4, begin=0, end=8).value_at(1) == 15
    )  # 14.5 rounds up


def test_no_torch_needed():
    folder = str(Path(schedule_module.__file__).parent)
    code = (
        "import importlib, sys, types; sys.modules['torch'] = None; "
        f"package = types.ModuleType('schedules'); package.__path__ = [{folder!r}]; "
        "sys.modules['schedules'] = package; "
        "build = importlib.import_module('schedules.schedule_config').build_schedule; "
        "print(build('act_bits', dict(type='step', steps=[(0, 8)])).final)"
    )
    assert subprocess.check_output([sys.executable, '-c', code], text=True) == '8\n'


@given(
    st.sampled_from(SMOOTH),
    st.sampled_from(QUANTITIES),
    st.integers(0, 50),
    st.integers(1, 60),
    st.integers(1, 70),
)
def test_smooth_schedules_only_lower_and_stay_in_range(kind, quantity, begin, length, interval):
    schedule = smooth(kind, quantity, begin=begin, end=begin + length, interval=interval)
    values = [schedule.value_at(t) for t in range(begin + length + 3)]
    assert all(later <= earlier for earlier, later in zip(values, values[1:], strict=False))
    assert values[0] == (1.0 if quantity == 'keep_ratio' else 32) and values[-1] == schedule.final
    if quantity != 'keep_ratio':
        assert all(type(value) is int and (2 <= value <= 16 or value == 32) for value in values)


STEP_ERRORS = [
    ([], 'StepSchedule of keep_ratio: steps must be a list of .* with at least one pair, got'),
    ('half', 'steps must be a list of'),
    ([0.5], 'steps must be a list of'),
    ([(0, 1.0, 2)], 'steps must be a list of'),
    ([(1, 1.0)], r'the first step must be at 0, got 1. Put \(0, 1.0\) before it'),
    ([(0, 1.0), (5, 0.5), (5, 0.25)], 'the moments of steps must increase, got 5 after 5'),
    ([(0, 1.0), (5, 0.5), (4, 0.25)], 'the moments of steps must increase, got 4 after 5'),
    ([(0, 0.5), (5, 1.0)], 'values must not increase, got 1.0 after 0.5. A schedule only lowers'),
    (
        [(0, 1.5)],
        r'the value of a step must be in \(0, 1\], got 1.5. It is a fraction: use 0.5 for 50 %',
    ),
    ([(0, 0.0)], r'must be in \(0, 1\], got 0.0'),
    ([(0, float('nan'))], r'must be in \(0, 1\], got nan'),
    ([(0, True)], r'must be in \(0, 1\], got True'),
    ([(-1, 1.0)], 'the moment of a step must be an integer of at least 0, got -1'),
    ([(0.5, 1.0)], 'must be an integer of at least 0, got 0.5'),
]


@pytest.mark.parametrize(('steps', 'message'), STEP_ERRORS)
def test_step_refusals(steps, message):
    with pytest.raises(ValueError, match=message):
        StepSchedule('keep_ratio', steps)


@pytest.mark.parametrize('bits', [1, 17, 31, 33, 8.0, '8', True])
def test_bits_of_weights_refusals(bits):
    with pytest.raises(
        ValueError,
        match='StepSchedule of weight_bits: .* from 2 to 16 or 32, got .* Use 32 to switch',
    ):
        StepSchedule('weight_bits', [(0, bits)])


@pytest.mark.parametrize('bits', [0, -1, 16.5, 31, 33, '8', True])
def test_bits_of_activations_refusals(bits):
    with pytest.raises(
        ValueError,
        match='StepSchedule of act_bits: .* above 0 and at most 16, or 32, got .* Use 32',
    ):
        StepSchedule('act_bits', [(0, bits)])


def test_mean_bits_need_not_be_whole():
    schedule = StepSchedule('act_bits', [(0, 8), (3, 1.5)])
    assert schedule.value_at(3) == 1.5 and schedule.values == [1.5, 8]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            dict(begin=20),
            'LinearSchedule of keep_ratio: begin must be before end, got begin=20 and end=20. Use '
            'type=',
        ),
        (dict(start=0.25), 'stop must be below start, got start=0.25 and stop=0.25'),
        (dict(start=0.1), 'stop must be below start, got start=0.1'),
        (dict(stop=0), r'stop must be in \(0, 1\], got 0'),
        (dict(begin=-1), 'begin must be an integer of at least 0, got -1'),
        (dict(end=2.5), 'end must be an integer of at least 0, got 2.5'),
        (dict(interval=0), 'interval must be an integer of at least 1, got 0'),
        (dict(stopp=1), 'has no key stopp. Its keys are type, begin, end, start, stop, interval'),
    ],
)
def test_smooth_refusals(changes, message):
    with pytest.raises(ValueError, match=message):
        smooth('linear', **changes)


@pytest.mark.parametrize(
    ('cfg', 'error', 'message'),
    [
        ([(0, 1.0)], TypeError, r'the schedule of keep_ratio must be a dict, got \[\(0, 1.0\)\]'),
        (
            dict(steps=[(0, 1.0)]),
            ValueError,
            'must be one of step, linear, cosine, exponential, got None',
        ),
        (dict(type='Step', steps=[(0, 1.0)]), ValueError, "got 'Step'. Did you mean type='step'"),
        (dict(type='step'), ValueError, 'needs the key steps. Its keys are type, steps'),
        (dict(type='linear', begin=0, end=1), ValueError, 'needs the key start, stop'),
    ],
)
def test_build_refusals(cfg, error, message):
    with pytest.raises(error, match=message):
        build_schedule('keep_ratio', cfg)


def test_unknown_quantity():
    with pytest.raises(
        ValueError, match="quantity must be one of keep_ratio, weight_bits, act_bits, got 'bits'"
    ):
        build_schedule('bits', dict(type='step', steps=[(0, 8)]))


@pytest.mark.parametrize(
    'kind', ['step', 'StepSchedule', StepSchedule, 'mmwcc.compression.schedule.StepSchedule']
)
def test_a_schedule_may_be_named_by_its_class(kind):
    assert build_schedule('act_bits', dict(type=kind, steps=[(0, 32), (5, 8)])).value_at(5) == 8
