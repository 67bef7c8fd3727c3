"""Parts that error messages share: guesses at misspelt words, and lists that stay short."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

__all__ = ['cause', 'check_keys', 'did_you_mean', 'some_of']


def cause(error: BaseException) -> str:
    """Return the type and text of an error, for a sentence that goes on or ends after it.

    Example:
        >>> cause(ValueError('Sizes must match.'))
        'ValueError: Sizes must match'
    """
    return f'{type(error).__name__}: {error}'.rstrip('. \n')


def did_you_mean(word: object, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return a question that names the known word nearest to ``word``, and a space to go on after.

    Args:
        word: What was written.
        known: The words that would have been right.
        cutoff: How similar a word must be, from 0 to 1. Defaults to 0.6.

    Returns:
        The question, or '' if no known word is similar.

    Example:
        >>> did_you_mean('keep_ration', ['keep_ratio', 'levels'])
        "Did you mean 'keep_ratio'? "
    """
    nearest = get_close_matches(str(word), known, n=1, cutoff=cutoff)
    return f'Did you mean {nearest[0]!r}? ' if nearest else ''


def check_keys(
    owner: str, keys: Iterable, known: Sequence[str], remedies: Mapping[str, str] | None = None
) -> None:
    """Refuse a key that is not known.

    Args:
        owner: What has the keys. The message begins with it.
        keys: The keys that were given.
        known: The keys that are known.
        remedies: Sentences for keys that are often written here by mistake. They take the place of
            the guess. Defaults to none.

    Raises:
        ValueError: If a key is not known.
    """
    for key in keys:
        if key not in known:
            remedy = (remedies or {}).get(key)
            hint = f'{remedy} ' if remedy else did_you_mean(key, known)
            raise ValueError(f'{owner}: unknown key {key!r}. {hint}Known keys: {", ".join(known)}.')


def some_of(names: Iterable[str], most: int = 5, separator: str = ', ') -> str:
    """List the first names, and count the others. Sets are sorted first.

    Example:
        >>> some_of(['a', 'b', 'c', 'd'], most=2)
        'a, b and 2 more'
    """
    names = sorted(names) if isinstance(names, (set, frozenset)) else list(names)
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return separator.join(names[:most]) + more
