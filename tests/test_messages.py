"""What error messages share: guesses at misspelt words, and lists that stay short."""

import pytest

from mmwcc.messages import cause, check_keys, did_you_mean, some_of

KEYS = ['keep_ratio', 'levels', 'wavelet']


@pytest.mark.parametrize(
    ('word', 'question'),
    [
        ('keepratio', "Did you mean 'keep_ratio'? "),
        ('level', "Did you mean 'levels'? "),
        ('bits', ''),
        (3, ''),
    ],
)
def test_the_nearest_word_is_offered(word, question):
    assert did_you_mean(word, KEYS) == question


def test_known_keys_pass():
    check_keys('layer', dict(levels=3), KEYS)


def test_an_unknown_key_is_named_with_those_that_are_known():
    expected = (
        r"layer: unknown key 'level'\. Did you mean 'levels'\? Known keys: keep_ratio, levels"
    )
    with pytest.raises(ValueError, match=expected):
        check_keys('layer', dict(level=3), KEYS)


def test_a_known_mistake_has_its_own_remedy():
    with pytest.raises(ValueError, match=r"unknown key 'level'\. Use depth\. Known keys"):
        check_keys('layer', dict(level=3), KEYS, dict(level='Use depth.'))


def test_long_lists_end_in_a_count():
    assert some_of(KEYS) == 'keep_ratio, levels, wavelet'
    assert some_of(iter(KEYS), most=1) == 'keep_ratio and 2 more'


def test_the_cause_of_an_error_ends_without_a_full_stop():
    assert cause(RuntimeError('Sizes must match.\n')) == 'RuntimeError: Sizes must match'
    assert cause(KeyError('x')) == "KeyError: 'x'" and cause(ValueError()) == 'ValueError:'
