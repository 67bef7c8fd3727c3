"""Stand in for ``mmcv.ops`` where nothing calls an operator. This is not mmcv.

mmsegmentation imports ``mmcv.ops`` whether or not it calls an operator, and compiling mmcv takes
longer than the whole demo. So ``tools/misc/setup_env.sh`` installs mmcv-lite for the demo, and
copies this file into it as ``mmcv/ops/__init__.py``. The file belongs to no package, and no other
environment has it. ``make setup`` puts the full mmcv in its place.

It must never pass for mmcv:

- Importing it warns.
- It has only the names that mmsegmentation and mmcv-lite import. ``from mmcv.ops import nms`` fails
  here as it does without ``mmcv.ops``, so a program that tries this import goes on without it.
- Its operators raise an error when they are called.

A program that only tries ``import mmcv.ops`` gets the warning and nothing else. It should import
the operator that it needs, or ask ``mmengine.utils.dl_utils.mmcv_full_available()``, which says no.
"""

import warnings

__all__ = [
    'CrissCrossAttention',
    'PSAMask',
    'get_compiler_version',
    'get_compiling_cuda_version',
    'point_sample',
    'sigmoid_focal_loss',
]

_REMEDY = 'Run `make setup` in the clone of mmwcc to install the full mmcv.'

warnings.warn(
    "mmcv.ops is a stand-in without operators, which is enough for mmwcc's demo. " + _REMEDY,
    RuntimeWarning,
    stacklevel=2,
)


def _missing(name: str):
    """Return a function that says that the operator ``name`` is missing."""

    def operator(*args, **kwargs):
        raise RuntimeError(
            f'mmcv.ops.{name}: this environment has no operators, because it was set up for '
            f"mmwcc's demo alone. {_REMEDY}"
        )

    operator.__name__ = operator.__qualname__ = name
    return operator


CrissCrossAttention = _missing('CrissCrossAttention')
PSAMask = _missing('PSAMask')
point_sample = _missing('point_sample')
sigmoid_focal_loss = _missing('sigmoid_focal_loss')


def get_compiler_version() -> str:
    """Return what mmcv reports as its compiler: none."""
    return 'n/a (stand-in of mmcv.ops)'


get_compiling_cuda_version = get_compiler_version
