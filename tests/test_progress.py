"""What is said about how far something is: how much of it, how often, and where."""

import io

import pytest

from mmwcc import progress
from mmwcc.progress import Progress, Stages, duration, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
    return now


def lines_of(clock, moments, **options):
    """Return the lines about steps that end at these moments."""
    lines = []
    for moment in track(moments, 'work', 'steps', say=lines.append, **options):
        clock[0] = moment
    return lines


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0.4, '0 s'), (89, '89 s'), (90, '2 min'), (5399, '90 min'), (5400, '1.5 h')],
)
def test_durations_have_the_unit_that_suits_them(seconds, text):
    assert duration(seconds) == text


def test_a_log_has_totals_and_the_remaining_time(clock):
    assert lines_of(clock, [6, 12, 18, 24]) == [
        'work: 4 steps',
        'work: 1/4 steps, about 18 s left',
        'work: 2/4 steps, about 12 s left',
        'work: 3/4 steps, about 6 s left',
        'work: 4/4 steps in 24 s',
    ]


def test_what_is_over_soon_has_one_line(clock):
    assert lines_of(clock, [1, 2, 3, 4.9]) == ['work: 4 steps']


def test_the_lines_of_a_long_log_become_rarer(clock):
    lines = lines_of(clock, range(1, 3601))
    assert lines[1:3] == [
        'work: 5/3600 steps, about 60 min left',
        'work: 10/3600 steps, about 60 min left',
    ]
    assert 40 < len(lines) < 70


def test_without_a_total_the_time_so_far_is_said(clock):
    assert lines_of(clock, iter([6, 7])) == [
        'work: steps',
        'work: 1 steps, 6 s so far',
        'work: 2 steps in 7 s',
    ]


def test_a_terminal_has_one_line_that_changes(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr('sys.stderr', terminal)
    for moment in track([1, 1.1, 2], 'work', 'steps'):
        clock[0] = moment
    assert terminal.getvalue().split('\r\x1b[K') == [
        'work: 3 steps\n',
        'work: 1/3 steps, about 2 s left',
        'work: 3/3 steps in 2 s\n',
    ]


def test_a_file_has_lines_that_end(clock, capsys):
    for moment in track([6], 'work', 'steps'):
        clock[0] = moment
    captured = capsys.readouterr()
    assert captured.err == 'work: 1 steps\nwork: 1/1 steps in 6 s\n' and not captured.out


def test_nothing_is_said_on_request(clock, capsys):
    assert list(track([6, 7], 'work', verbose=False)) == [6, 7]
    assert capsys.readouterr() == ('', '')


def test_an_error_ends_the_line(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr('sys.stderr', terminal)
    with pytest.raises(OSError):
        for moment in track([1, 2], 'work', 'steps'):
            clock[0] = moment
            raise OSError
    assert terminal.getvalue().endswith('work: 0/2 steps in 1 s\n')


def test_steps_are_counted_without_items(clock):
    lines = []
    count = Progress('work', 2, say=lines.append)
    clock[0] = 5
    count.step()
    assert lines == ['work: 2', 'work: 1/2, about 5 s left']


def test_stages_are_named_before_they_begin(clock, capsys):
    stages = Stages('export', 2, verbose=True)
    stages.begin('trace')
    clock[0] = 30
    stages.begin('compare')
    assert (
        capsys.readouterr().err
        == 'export: 1/2 trace (0 s so far)\nexport: 2/2 compare (30 s so far)\n'
    )
    Stages('export', 1, verbose=False).begin('trace')
    assert not capsys.readouterr().err


class Stream:
    """Items that have a method for their number, and no number, as a data loader over a stream."""

    def __iter__(self):
        return iter('ab')

    def __len__(self):
        raise TypeError('object of type Stream has no len()')


def test_a_stream_has_no_total(clock, capsys):
    assert list(track(Stream(), 'reading', 'batches')) == ['a', 'b']
    assert capsys.readouterr().err == 'reading: batches\n'


def test_more_steps_than_said_leave_no_negative_time(clock):
    lines = []
    count = Progress('work', 1, 'steps', say=lines.append)
    count.step()
    clock[0] = 10
    count.step()
    assert lines[-1] == 'work: 2/1 steps, 10 s so far'


@pytest.mark.parametrize('stderr', [None, object()])
def test_a_process_without_a_terminal_can_count(stderr, monkeypatch):
    monkeypatch.setattr('sys.stderr', stderr)
    lines = []
    assert list(track([1], 'work', say=lines.append)) == [1]
    monkeypatch.setattr('sys.stderr', None)
    assert list(track([1], 'work')) == [1]
