"""mmwcc/utils/command_line.py."""

import warnings

import pytest

pytest.importorskip('mmengine')
from mmwcc.utils import LaunchError, one_line_errors, quiet  # noqa: E402


@pytest.mark.parametrize('error', [LaunchError('no such file'), ValueError('no such file')])
def test_errors_of_the_user_are_one_line(error):
    with pytest.raises(SystemExit) as caught, one_line_errors('tool.py', ValueError):
        raise error
    assert caught.value.code == 'tool.py: no such file'


@pytest.mark.parametrize('error', [TypeError, KeyboardInterrupt])
def test_other_errors_are_left(error):
    with pytest.raises(error), one_line_errors('tool.py', ValueError):
        raise error


def test_quiet():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        with quiet():
            warnings.warn('deprecated key', stacklevel=1)
        warnings.warn('heard', stacklevel=1)
    assert [str(warning.message) for warning in caught] == ['heard']
