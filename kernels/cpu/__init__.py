"""CPU kernels in numba. They change speed only: without this folder, or without numba, the references run."""
import sys

from numba.core import event


class _CompilationNotice(event.Listener):
    """Say once, on stderr, that our kernels are being compiled; kernels from numba's cache say nothing."""

    said = False

    def on_start(self, event) -> None:
        if not self.said and event.data['dispatcher'].py_func.__module__.startswith('mmwcc.kernels'):
            self.said = True
            print('mmwcc: compiling the CPU kernels, some ten seconds, once; numba keeps them in its cache.',
                  file=sys.stderr, flush=True)

    def on_end(self, event) -> None:
        pass


event.register('numba:compile', _CompilationNotice())
