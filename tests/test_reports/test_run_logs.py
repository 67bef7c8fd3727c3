"""mmwcc/reports/run_logs.py."""

import math

from mmwcc.reports.run_logs import Curve, is_result, join_logs, read_log, sort_entries

RESUMED, FRESH = dict(resume=True, train_cfg={}), dict(resume=False, train_cfg={})
BY_ITERATION = dict(default_hooks=dict(logger=dict(log_metric_by_epoch=False)))


def train(step, **more):
    return dict(loss=float(step), time=0.1, iter=step, step=step, **more)


def val(step, value):
    return dict(mIoU=value, time=0.1, step=step)


def steps(entries):
    return [entry['step'] for entry in entries]


def test_kinds_of_entries():
    entries = join_logs(
        [
            (
                BY_ITERATION,
                [
                    dict(train(1), lr=0.5, memory=9),
                    val(1, 7.0),
                    {'cost/macs': 5, 'step': 1},
                    dict(train(2), note='text'),
                ],
            )
        ]
    )
    losses, metrics, scalars = sort_entries(entries)
    assert losses == dict(loss=Curve([1, 2], [1.0, 2.0]), lr=Curve([1], [0.5]))
    assert metrics == dict(mIoU=Curve([1], [7.0]))
    assert scalars == {'cost/macs': Curve([1], [5.0])}
    assert (
        not is_result('loss', True) and not is_result('loss', 'low') and is_result('loss', math.nan)
    )


def test_a_resumed_run_continues_and_what_it_repeats_counts():
    first = [train(10), train(20), val(20, 1.0), train(30), val(30, 2.0)]
    second = [dict(train(30), loss=99.0), val(30, 3.0), train(40)]
    joined = join_logs([(FRESH | BY_ITERATION, first), (RESUMED | BY_ITERATION, second)])
    losses, metrics, _ = sort_entries(joined)
    assert losses['loss'] == Curve([10, 20, 30, 40], [10.0, 20.0, 99.0, 40.0])
    assert metrics['mIoU'] == Curve([20, 30], [1.0, 3.0])


def test_a_run_that_did_not_resume_replaces_the_earlier_one():
    assert steps(join_logs([(FRESH, [train(10), train(20)]), (FRESH, [train(15)])])) == [15]
    assert steps(join_logs([({}, [train(10), train(20)]), ({}, [train(15)])])) == [
        10,
        15,
    ]  # no config: by steps alone


def test_validations_counted_in_epochs():
    first = [train(63, epoch=1), val(1, 1.0), train(126, epoch=2), val(2, 2.0)]
    joined = join_logs(
        [
            ({}, first),
            (RESUMED, [train(126, epoch=2), val(2, 5.0), train(189, epoch=3), val(3, 6.0)]),
        ]
    )
    losses, metrics, _ = sort_entries(joined)
    assert losses['loss'].steps == [63, 126, 189] and losses['loss'].unit == 'iteration'
    assert metrics['mIoU'] == Curve([1, 2, 3], [1.0, 5.0, 6.0], 'epoch')


def test_validations_of_a_loop_by_iterations_logged_as_epoch_0():
    joined = join_logs([({}, [train(10), val(0, 1.0), train(20), val(0, 2.0)])])
    assert sort_entries(joined)[1]['mIoU'] == Curve([10, 20], [1.0, 2.0])


def test_unreadable_lines_are_noted(tmp_path):
    file, notes = tmp_path / 'scalars.json', []
    file.write_bytes(
        b'{"loss": NaN, "iter": 1, "step": 1}\n\n{"loss": 2, "st\n[1]\n'
        b'\xff\xfe\n{"loss": 3, "step": 3}\n'
        b'{"loss": 4}\n'
    )
    assert steps(read_log(file, notes)) == [1, 3]
    assert len(notes) == 1 and notes[0].startswith(f'3 of the lines of {file} could not be read')
    assert read_log(tmp_path / 'none.json', notes) == [] and len(notes) == 1
