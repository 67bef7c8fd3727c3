"""How the kernels are compiled, and where the compiled code is kept."""

from __future__ import annotations

import hashlib
import sys
from contextlib import suppress
from pathlib import Path

import numba
from numba.core import event
from numba.core.caching import FunctionCache, IndexDataCacheFile

from .threads import HAS_OPENMP

__all__ = ['jit']

# The cache is stamped with a hash of all sources. Kernels are compiled into one another, but numba
# would look only at the file of the one. The stamp also tells whether there is OpenMP: where there
# is none, cached code that calls it would end the process.
_SOURCES = b''.join(path.read_bytes() for path in sorted(Path(__file__).parent.glob('*.py')))
_STAMP = hashlib.sha256(_SOURCES).hexdigest(), HAS_OPENMP

_PLACE = 'Set NUMBA_CACHE_DIR to a folder that can be written to.'
_said: set[str] = set()


def _say_once(kind: str, text: str) -> None:
    """Print a notice on stderr, unless one of its kind was printed before."""
    if kind not in _said:
        _said.add(kind)
        print(f'mmwcc: {text}', file=sys.stderr, flush=True)


class _Files(IndexDataCacheFile):
    """The cache of one function: files of code, and an index of which signature is in which file.

    Numba numbers these files. When two processes compile two signatures at once, both take the
    first free number, and the index of one leads to the code of the other. Here a file is named
    after what it holds and is written before the index. So the index is right, whichever process
    writes it last.
    """

    def save(self, key, data) -> None:
        held = hashlib.sha256(self._dump((self._source_stamp, key))).hexdigest()[:16]
        name = f'{Path(self._index_name).stem}.{held}.nbc'
        self._save_data(name, data)
        self._save_index({**self._load_index(), key: name})

    def _load_index(self) -> dict:
        try:
            return super()._load_index()
        except Exception:  # cut short by a full disk or power loss: to be replaced
            return {}


class _Cache(FunctionCache):
    """The cache of one function. When it fails, the function is compiled as if there were no cache.

    Raises:
        RuntimeError: If numba finds no place for it.
    """

    def __init__(self, function) -> None:
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp(), _STAMP
        self._cache_file = _Files(self.cache_path, self._impl.filename_base, stamp)

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # damaged, as an index may be: compile, and replace it
            return None

    def save_overload(self, sig, data) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:  # no space is left, or the folder is gone
            _say_once(
                'not kept',
                f'the compiled CPU kernels could not be kept ({error}), so the '
                f'next process compiles them again. {_PLACE}',
            )


def _notice(cache: object) -> str:
    """Say what is being compiled, and for how long it will do."""
    if not isinstance(cache, _Cache):
        return (
            'compiling the CPU kernels, about half a minute, in every process, since numba finds '
            f'no place to keep them. {_PLACE}'
        )
    # Files that are older than a source hold code that is not used any more.
    newest = max(path.stat().st_mtime for path in Path(__file__).parent.glob('*.py'))
    kept = Path(cache.cache_path).glob('*.nbi')
    if any(path.stat().st_mtime > newest for path in kept):
        return 'compiling some more of the CPU kernels; numba keeps them in its cache.'
    return 'compiling the CPU kernels, about half a minute, once; numba keeps them in its cache.'


class _CompilationNotice(event.Listener):
    """Say once, on stderr, that our kernels are being compiled.

    Kernels that come from the cache print nothing.
    """

    def on_start(self, event) -> None:
        dispatcher = event.data['dispatcher']
        if dispatcher.py_func.__module__.startswith('mmwcc.kernels'):
            _say_once('compiling', _notice(dispatcher._cache))

    def on_end(self, event) -> None:
        pass


event.register('numba:compile', _CompilationNotice())


def jit(**options):
    """Return the decorator that compiles a kernel.

    The kernel is compiled at its first call and kept in numba's cache, if there is a place for one.

    Args:
        **options: Options of ``numba.njit``.
    """

    def decorate(function):
        dispatcher = numba.njit(nogil=True, **options)(function)
        with suppress(RuntimeError, OSError):  # no place for a cache, as the notice says
            dispatcher._cache = _Cache(function)  # as njit(cache=True) does with numba's class
        return dispatcher

    return decorate
