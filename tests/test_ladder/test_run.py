"""Running a ladder with tools that only pretend: what is run, what is repeated, what is refused."""

import fcntl
import json
import sys

import pytest
import torch

from mmwcc.ladder.job import run_command
from mmwcc.utils import LaunchError

ALL = [
    'test dense',
    'train quant_seed0',
    'test quant_seed0',
    'train wcc_seed0',
    'test wcc_seed0',
    'calibrate ptq',
    'test ptq',
]


def states(run):
    return {name: outcome.state for name, outcome in run.outcomes.items()}


def record(tmp_path, name):
    return json.loads((tmp_path / 'work' / name / 'ladder.json').read_text())


def test_everything_once(start, tools, tmp_path):
    run = start()
    assert set(states(run).values()) == {'new'} and run.run()
    assert tools.calls == ALL and set(states(run).values()) == {'finished'}
    assert record(tmp_path, 'wcc_seed0')['metrics'] == {'accuracy/top1': 55.0}
    assert list(run.records()) == ['dense', 'quant_seed0', 'wcc_seed0', 'ptq']

    again = start()
    assert set(states(again).values()) == {'finished'} and again.run() and tools.calls == ALL
    assert all(not again.commands(name) for name in again.outcomes)


def test_commands(start, tmp_path):
    run, work = start(), tmp_path / 'work'
    dense, wcc, ptq = (run.commands(name) for name in ('dense', 'wcc_seed0', 'ptq'))
    assert [command[0] for command in (*dense, *wcc, *ptq)] == [sys.executable] * 5
    assert [command[2:] for command in dense] == [
        [f'{work}/dense/point/dense.py', f'{tmp_path}/dense.pth', '--work-dir', f'{work}/dense']
    ]
    config, end = f'{work}/wcc_seed0/point/wcc.py', ['--work-dir', f'{work}/wcc_seed0']
    assert [command[2:] for command in wcc] == [
        [config, '--resume', *end],
        [config, f'{work}/wcc_seed0/iter_4.pth', *end],
    ]
    assert ptq[0][2:] == [
        f'{work}/ptq/point/ptq.py',
        f'{tmp_path}/dense.pth',
        '--no-test',
        '--out',
        f'{work}/ptq/calibrated.pth',
        '--images',
        '3',
        '--keep-batch-norm',
        '--work-dir',
        f'{work}/ptq',
    ]
    run.run()
    text = (work / 'wcc_seed0' / 'point' / 'wcc.py').read_text()
    assert f"load_from = '{work}/quant_seed0/iter_4.pth'" in text and 'keep_ratio=0.25' in text


def test_seeds_share_what_has_none(start, tools):
    start(seeds=(0, 1)).run()
    assert len(tools.calls) == len(set(tools.calls)) == len(ALL) + 4


def test_what_fails_stops_only_what_needs_it(start, tools, tmp_path):
    tools.broken = {'train quant_seed0'}
    run = start()
    assert not run.run()
    assert states(run) == dict(
        dense='finished', quant_seed0='failed', wcc_seed0='waiting', ptq='finished'
    )
    assert run.outcomes['quant_seed0'].message == (
        f'train.py ended with 3: train says something '
        f'({tmp_path / "work" / "quant_seed0" / "ladder.log"})'
    )
    assert '[3/4] wcc_seed0: waiting, for quant_seed0' in run.lines

    tools.broken, tools.calls = set(), []
    run = start()
    assert states(run) == dict(
        dense='finished', quant_seed0='begun', wcc_seed0='new', ptq='finished'
    )
    assert run.run() and tools.calls == ALL[1:5]


def test_killed_in_training_and_in_testing(start, tools, tmp_path):
    def killed(when):
        def execute(command, log, lock):
            code = tools(command, log, lock) if tools.calls[-1:] != [when] else None
            if tools.calls[-1] == when:
                raise KeyboardInterrupt
            return code

        return execute

    def half_trained(command, log, lock):
        tools.calls.append('train quant_seed0')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(only=['quant'], execute=half_trained).run()
    assert states(start(only=['quant'])) == dict(quant_seed0='begun')
    with pytest.raises(KeyboardInterrupt):  # in the test, with the training done
        start(only=['quant'], execute=killed('test quant_seed0')).run()
    (tmp_path / 'work' / 'quant_seed0' / f'20260101_{len(tools.calls):06d}').rename(
        tmp_path / 'lost'
    )
    tools.calls.clear()
    run = start(only=['quant'])
    assert run.run() and tools.calls == ['test quant_seed0'], 'what is trained is not trained again'
    assert any('goes on' in line for line in run.lines)


def test_a_damaged_checkpoint_is_trained_again(start, tools, tmp_path):
    tools.broken = {'test quant_seed0'}
    start(only=['quant']).run()
    (tmp_path / 'work' / 'quant_seed0' / 'iter_4.pth').write_bytes(b'PK\x03\x04 cut off')
    tools.broken, tools.calls = set(), []
    assert start(only=['quant']).run() and tools.calls == ALL[1:3]


def test_a_test_without_metrics_fails(start, tools):
    run = start(only=['dense'], execute=lambda command, log, lock: 0)
    assert not run.run() and 'a work folder must hold its config' in run.outcomes['dense'].message
    tools.broken = {'test dense'}
    start(only=['dense']).run()
    run = start(only=['dense'], execute=lambda command, log, lock: tools(command, log, lock) and 0)
    assert not run.run() and run.outcomes['dense'].state == 'failed'


def test_changed_recipe(start, tools, tmp_path):
    start().run()
    changed = ('lr=0.05', 'lr=0.02')
    run = start(changed)
    assert states(run) == dict.fromkeys(('dense', 'quant_seed0', 'wcc_seed0', 'ptq'), 'changed')
    with pytest.raises(
        ValueError,
        match=r'dense in .* has been run under other settings: optim_wrapper.optimizer.lr '
        r'was 0.05, is 0.02. So have 3 more. Choose another --work-dir, or .*--force',
    ):
        run.run()
    assert tools.calls == ALL

    run.set_aside_changes()
    assert run.run() and tools.calls == ALL * 2
    assert (tmp_path / 'work' / 'old' / 'wcc_seed0-1' / 'ladder.json').is_file()
    start().set_aside_changes()
    assert (tmp_path / 'work' / 'old' / 'wcc_seed0-2').is_dir()


def test_a_changed_point_changes_what_starts_from_it(start):
    start().run()
    assert states(start(("compression='quant_w8a8'", "compression='quant_w8a6'"))) == dict(
        dense='finished', quant_seed0='changed', wcc_seed0='changed', ptq='finished'
    )


def test_another_checkpoint_is_another_ladder(start, tmp_path):
    run = start(only=['dense'])
    run.run()
    torch.save(dict(other=1), tmp_path / 'dense.pth')
    run = start(only=['dense'])
    assert (
        run.outcomes['dense'].state == 'changed'
        and 'ladder.start was' in run.outcomes['dense'].message
    )


def test_points_that_another_process_works_on(start, tools, tmp_path):
    folder = tmp_path / 'work' / 'quant_seed0'
    folder.mkdir(parents=True)
    with (folder / 'ladder.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = start()
        assert not run.run()
        assert states(run) == dict(
            dense='finished', quant_seed0='busy', wcc_seed0='waiting', ptq='finished'
        )
    assert start().run()


def test_what_another_process_has_done_meanwhile(start, tools):
    late, other = start(only=['quant']), start(('lr=0.05', 'lr=0.02'), only=['wcc'])
    finished = start(only=['dense'])
    start(only=['dense']).run(), other.run()
    tools.calls.clear()
    assert finished.run() and not late.run() and tools.calls == []
    assert states(late) == dict(quant_seed0='changed')


def test_a_training_keeps_the_lock_when_its_ladder_dies(tmp_path):
    """The lock is inherited: it is free again when the command ends, not when the one who took it
    does.
    """
    with (tmp_path / 'lock').open('w') as lock, (tmp_path / 'lock').open('w') as other:
        fcntl.flock(lock, fcntl.LOCK_EX)
        program = (
            f'import fcntl; fcntl.flock({lock.fileno()}, fcntl.LOCK_EX | fcntl.LOCK_NB); '
            'print("mine too")'
        )
        assert run_command([sys.executable, '-c', program], tmp_path / 'log', lock.fileno()) == 0
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert (tmp_path / 'log').read_text().endswith('mine too\n')


def test_missing_compression_is_no_reason_to_wait(start, tools, tmp_path):
    add = (
        "points += [dict(name='later', compression='later.py'), "
        "dict(name='after', start='later')]\n"
    )
    run = start(add=add)
    assert not run.run() and tools.calls == ALL
    assert run.outcomes['later_seed0'].message.startswith(
        'the compression of point later is to be in'
    )
    assert run.outcomes['after_seed0'].message == 'its start later_seed0 cannot be had'
    assert run.commands('later_seed0') == []
    (tmp_path / 'later.py').write_text("_base_ = 'mmwcc::_base_/compression/quant_w8a8.py'\n")
    tools.calls.clear()
    assert start(add=add).run() and tools.calls[0] == 'train later_seed0' and len(tools.calls) == 4


def test_missing_checkpoint(start, tmp_path):
    with pytest.raises(LaunchError, match='dense.pth does not exist'):
        start((str(tmp_path / 'dense.pth'), 'no/dense.pth'))


def test_estimate(start, tmp_path):
    run = start(seeds=(0, 1))
    run.run()
    for name, minutes in dict(dense=1, ptq=3, quant_seed0=30, wcc_seed0=50).items():
        content = record(tmp_path, name)
        (tmp_path / 'work' / name / 'ladder.json').write_text(
            json.dumps({**content, 'minutes': minutes})
        )
    for name in ('quant_seed1', 'wcc_seed1'):
        (tmp_path / 'work' / name / 'ladder.json').unlink()
    run = start(seeds=(0, 1))
    run.run()
    assert 'quant_seed1: begins, about 80 min left' in ' '.join(run.lines)
