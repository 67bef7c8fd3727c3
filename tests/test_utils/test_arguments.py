"""Options that several tools share: what they read, and what they refuse."""

import argparse
import os

import pytest

pytest.importorskip('mmengine')

from mmwcc.utils import arguments


@pytest.fixture
def parser():
    return argparse.ArgumentParser(prog='tool')


def test_the_launcher_sets_the_rank_once(parser, monkeypatch):
    arguments.add_launch_options(parser)
    monkeypatch.setenv('LOCAL_RANK', '')  # so that it goes when the test ends
    monkeypatch.delenv('LOCAL_RANK')
    args = arguments.parse_launched(parser, ['--local-rank', '3', '--cfg-options', 'a.b=1'])
    assert (args.launcher, args.cfg_options, os.environ['LOCAL_RANK']) == ('none', {'a.b': 1}, '3')
    arguments.parse_launched(parser, ['--local_rank', '2'])
    assert os.environ['LOCAL_RANK'] == '3', 'what the launcher set stays'


def test_a_dense_network_is_compressed_by_a_preset(parser, capsys):
    arguments.add_dense_network(parser)
    arguments.add_compression(parser, ['one', 'two'])
    args = parser.parse_args(['c.py', 'c.pth', '--compression', 'two'])
    assert vars(args) == dict(config='c.py', checkpoint='c.pth', compression='two')
    with pytest.raises(SystemExit):
        parser.parse_args(['c.py', 'c.pth', '--compression', 'three'])
    assert "invalid choice: 'three'" in capsys.readouterr().err


@pytest.mark.parametrize('option', ['--images', '--batch-size'])
def test_less_than_one_image_is_refused(parser, capsys, option):
    arguments.add_images(parser, 16, 8, 'calibration')
    arguments.require_at_least_one(parser, parser.parse_args([]), 'images', 'batch_size')
    args = parser.parse_args([option, '0'])
    with pytest.raises(SystemExit):
        arguments.require_at_least_one(parser, args, 'images', 'batch_size')
    assert f'tool: error: {option} must be at least 1, got 0' in capsys.readouterr().err


def test_a_report_is_a_json_file(parser, capsys):
    arguments.add_report_options(parser)
    for words in ([], ['--out', 'report.json']):
        arguments.require_ending(parser, parser.parse_args(words), '.json')
    with pytest.raises(SystemExit):
        arguments.require_ending(parser, parser.parse_args(['--out', 'report.txt']), '.json')
    assert '--out must end in .json, got report.txt' in capsys.readouterr().err


def test_help_says_what_a_shape_is_for(parser):
    arguments.add_hub_config(parser)
    arguments.add_shape(parser, 'the size')
    text = ' '.join(parser.format_help().split())
    assert 'the size, one number for a square' in text and 'mmseg::pspnet/NAME.py' in text
    assert parser.parse_args(['c.py', '--shape', '3', '8', '9']).shape == [3, 8, 9]
