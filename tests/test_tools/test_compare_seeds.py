"""tools/analysis_tools/compare_seeds.py."""

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip('mmengine', reason='work folders are read with mmengine', exc_type=ImportError)

TOOL = Path(__file__).parents[2] / 'tools' / 'analysis_tools' / 'compare_seeds.py'
spec = importlib.util.spec_from_file_location('compare_seeds', TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def write(folder, *values, time='20260101_000000'):
    """Write a training by iterations with these results of its validations."""
    log = folder / time / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    entries = [dict(loss=1.0, iter=1, step=1)]
    entries += [dict(mIoU=value, time=0.1, step=step) for step, value in enumerate(values, 1)]
    log.write_text('\n'.join(map(json.dumps, entries)))
    (log.parent / 'config.py').write_text('model = None')
    return str(folder)


def test_gap_and_standard_error(tmp_path, capsys):
    ours = [write(tmp_path / f'a{i}', 1.0, value) for i, value in enumerate((80.0, 82.0, 84.0))]
    theirs = [write(tmp_path / f'b{i}', value) for i, value in enumerate((79.0, 80.0, 81.0))]
    tool.main(['mIoU', '--runs', *ours, '--against', *theirs])
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:4] == ['runs', '82.000', '+-', '1.155']  # 2 / sqrt(3)
    assert out[1].split()[:4] == ['against', '80.000', '+-', '0.577']
    assert out[2].split()[:4] == ['gap', '2.000', '+-', '0.577']
    assert out[3] == '95 % interval of the gap: -0.483 to 4.483; it includes zero'
    assert 'it excludes zero' in tool.report([80.0, 82.0], [70.0, 72.1])


def test_the_last_validation_of_the_newest_training_or_the_test(tmp_path):
    write(tmp_path, 5.0, time='20260101_000000')
    folder = write(tmp_path, 1.0, 2.0, time='20260102_000000')
    assert tool.result(folder, 'mIoU') == 2.0
    (tmp_path / '20260103_000000').mkdir()
    (tmp_path / '20260103_000000' / '20260103_000000.json').write_text('{"mIoU": 3.0}')
    assert tool.result(folder, 'mIoU') == 3.0


def test_errors(tmp_path):
    folder = write(tmp_path / 'a', 1.0)
    with pytest.raises(SystemExit, match="compare_seeds: metric must be one of mIoU, got 'mAP'"):
        tool.main(['mAP', '--runs', folder, folder, '--against', folder, folder])
    with pytest.raises(
        SystemExit, match='compare_seeds: read_work_dir: path must be a work folder, got'
    ):
        tool.main(['mIoU', '--runs', folder, str(tmp_path / 'b'), '--against', folder, folder])
    with pytest.raises(SystemExit, match='2'):
        tool.main(['mIoU', '--runs', folder, '--against', folder])
