"""mmwcc/reports/metrics.py."""

import pytest

pytest.importorskip('mmengine', reason='work folders are read with mmengine', exc_type=ImportError)

import toy_work_dirs as toy  # noqa: E402

from mmwcc.reports.metrics import common_metric, larger_is_better  # noqa: E402
from mmwcc.reports.work_dirs import read_work_dir  # noqa: E402


def test_better_and_common_metrics(tmp_path):
    assert (
        larger_is_better('coco/bbox_mAP')
        and larger_is_better('accuracy/top1')
        and larger_is_better('PSNR')
    )
    assert larger_is_better('loss') is False and larger_is_better('abs_rel') is False
    assert larger_is_better('energy') is None
    folders = [read_work_dir(toy.make_work_dir(tmp_path / name)) for name in 'ab']
    for work_dir in folders:
        work_dir.metrics = dict(aAcc=work_dir.metrics['mIoU'], mIoU=work_dir.metrics['mIoU'])
    assert common_metric(folders) == 'mIoU' and common_metric(folders, 'aAcc') == 'aAcc'
    del folders[1].metrics['mIoU']
    assert common_metric(folders) == 'aAcc'
    folders[0].metrics['energy'] = folders[0].metrics['aAcc']
    assert folders[0].best('energy') is None
    with pytest.raises(ValueError, match="metric must be one of aAcc, mIoU, energy, got 'mAP'"):
        common_metric(folders, 'mAP')
    for work_dir in folders:
        work_dir.metrics = {}
    assert common_metric(folders) is None
