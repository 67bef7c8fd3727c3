"""The metric by which trained models are compared, and which of its values are better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmengine.hooks import CheckpointHook

if TYPE_CHECKING:
    from .work_dirs import WorkDir

__all__ = ['common_metric', 'larger_is_better']

# The metrics that papers of the field report first, in this order.
_HEADLINES = ('mIoU', 'bbox_mAP', 'mAP', 'AP', 'top1', 'PSNR')
_LESS = (*CheckpointHook._default_less_keys, 'error', 'rmse', 'mae', 'mse', 'abs_rel')
_GREATER = (*CheckpointHook._default_greater_keys, 'psnr', 'ssim')


def larger_is_better(metric: str) -> bool | None:
    """Tell whether larger values of a metric are better, by the rules of mmengine's CheckpointHook.

    Returns:
        True or False, or None if it is not known.

    Example:
        >>> [larger_is_better(name) for name in ('coco/bbox_mAP', 'val_loss', 'energy')]
        [True, False, None]
    """
    name = metric.lower()
    if any(key.lower() in name for key in _LESS):
        return False
    return True if any(key.lower() in name for key in _GREATER) else None


def common_metric(work_dirs: list[WorkDir], wanted: str | None = None) -> str | None:
    """Return the metric by which to compare work folders: one that as many as possible have.

    Args:
        work_dirs: What :func:`mmwcc.reports.work_dirs.read_work_dir` returned.
        wanted: Name of the metric. Defaults to None: the metric by which mmengine would choose the
            best checkpoint, with mIoU, mAP, top1 and the like first.

    Returns:
        Its name, or None if no folder has a metric.

    Raises:
        ValueError: If no folder has the wanted metric.
    """
    names = [name for work_dir in work_dirs for name in work_dir.metric_names()]
    if wanted is not None:
        if wanted not in names:
            known = ', '.join(dict.fromkeys(names)) or 'none'
            raise ValueError(
                f'common_metric: metric must be one of {known}, got {wanted!r}. Use one that a '
                'work folder has.'
            )
        return wanted
    return min(
        dict.fromkeys(names), key=lambda name: (-names.count(name), _rank(name)), default=None
    )


def _rank(name: str) -> int:
    """Return the place of a metric among those that papers report first."""
    headline = name.rpartition('/')[2]
    return _HEADLINES.index(headline) if headline in _HEADLINES else len(_HEADLINES)
