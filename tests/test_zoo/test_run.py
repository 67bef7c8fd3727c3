"""Trials in processes of their own: results that are kept, and what ends a trial."""

import json
import os

import pytest

pytest.importorskip('mmseg', exc_type=ImportError)

from mmwcc.zoo import Method, ZooRun, versions, zoo_page, zoo_table  # noqa: E402

RAN = dict(
    size=64,
    seconds=3.2,
    dense=dict(error='', wrong_losses=[], seconds=1),
    compressed=dict(error='', wrong_losses=[], seconds=2),
    shares=dict(
        macs=1e6,
        wavelet=0.5,
        quantized=0.3,
        dense=[
            dict(kind='Linear', reason='is no nn.Conv2d', layers=2, share=0.16),
            dict(kind='Conv2d 1x1', reason="keep_dense 'last'", layers=1, share=0.04),
        ],
        uncounted={},
    ),
    trained=7,
    lost=[],
    zero=[],
)
METHODS = [
    Method('mmseg', name, None)
    for name in ('good', 'lossy', 'failing', 'dense', 'video', 'silent', 'none')
]
RESULTS = {
    'mmseg/good': RAN,
    'mmseg/lossy': dict(RAN, lost=['neck.weight']),
    'mmseg/failing': dict(RAN, compressed=dict(error='ValueError: no\nway', wrong_losses=[])),
    'mmseg/dense': dict(dense=dict(error='ImportError: transformers', seconds=1), size=64),
    'mmseg/video': dict(outside='works on video'),
    'mmseg/none': dict(RAN, nothing='it has only linear layers', compressed=None),
    'mmseg/silent': dict(
        RAN,
        shares=dict(RAN['shares'], dense=[dict(kind='Conv2d 3x3', reason='', layers=1, share=0.2)]),
    ),
}


def crash(method, preset):
    os.abort()


def calculate(method, preset):
    while True:
        pass


def fill_memory(method, preset):
    return dict(size=len(bytearray(2**31)))


def end(method, preset):
    raise SystemExit('enough')


@pytest.mark.parametrize(
    ('trial', 'reason'),
    [
        (crash, 'its process was ended by SIGABRT'),
        (calculate, 'it took more than 1 s of processor time'),
        (fill_memory, 'MemoryError'),
        (end, 'SystemExit: enough'),
    ],
)
def test_what_ends_a_trial_does_not_end_the_run(tmp_path, trial, reason):
    run = ZooRun(tmp_path / 'zoo.json', seconds=1, gigabytes=1, say=lambda text: None, trial=trial)
    run.run(METHODS[:1])
    assert reason in run.results['mmseg/good']['broken']


def test_results_are_kept_and_not_made_again(tmp_path):
    file, said = tmp_path / 'zoo.json', []
    file.write_text(json.dumps(dict(preset='x', versions=versions(), results=RESULTS)))
    run = ZooRun(file, 'x', say=said.append, trial=crash)
    run.run(METHODS)
    assert said == [] and run.results == RESULTS
    with pytest.raises(ValueError, match='must hold results of the same preset, got x instead of'):
        ZooRun(file, 'y')


def test_the_table_says_what_is_wrong():
    table = zoo_table(METHODS, RESULTS)
    assert '50%        30%  16% Linear (is no nn.Conv2d)' in table
    assert 'not tried: works on video' in table
    assert 'nothing to compress: it has only linear layers' in table
    assert 'does not run dense: ImportError: transformers' in table
    assert table.splitlines()[-3:] == [
        'mmseg/lossy: 1 of 7 parameters get no gradient: neck.weight.',
        'mmseg/failing: It fails compressed: ValueError: no way.',
        'mmseg/silent: Conv2d 3x3 has 20% of the operations and stays dense without a reason.',
    ]


def test_the_page_counts_what_is_right():
    new = Method('mmseg', 'new', None)
    page = zoo_page([*METHODS, new], RESULTS, 'wcc_w8a8_k50', (64, 128), dict(torch='2.13'))
    assert 'with torch 2.13, on the CPU' in page
    assert (
        'Of 8 methods, 7 have been tried, and 4 of these can be compared. Of those, 1 train and '
        'predict compressed without a fault.'
    ) in page.replace('\n', ' ')
    assert '| good |  | 64 | 50% | 30% | 16% Linear (is no nn.Conv2d) | 0 of 7 | 3 |' in page
    assert '- `video`: not tried: works on video' in page
