"""Register all components of mmwcc at once."""

from __future__ import annotations

from mmwcc.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS

__all__ = ['register_all_modules']


def register_all_modules(init_default_scope: bool = True) -> None:
    """Import every module of mmwcc that registers components.

    Configs do not need it, because a type written as ``mmwcc.X`` imports its module by itself.
    ``mmengine.hub`` calls it.

    Args:
        init_default_scope: Has no effect; it is accepted because all OpenMMLab packages have it.
            Configs with mmwcc keep the default scope of the library whose models they compress,
            mmseg's or mmdet's. Defaults to True.
    """
    for registry in (MODELS, HOOKS, DATASETS, TRANSFORMS, METRICS):
        registry.import_from_location()
