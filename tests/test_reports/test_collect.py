"""Reports on whatever lies in a folder of work folders."""

import json

import pytest

pytest.importorskip('mmengine', reason='work folders are read with mmengine', exc_type=ImportError)
cv2 = pytest.importorskip('cv2', reason='images are read with OpenCV')

import toy_work_dirs as toy  # noqa: E402

from mmwcc.reports import read_work_dirs, report_folders  # noqa: E402

DEMO_RUNS = ('dense_360i', 'quant-w8a8_40i', 'quant-w8a4_40i', 'wcc-w8a8-k12_5-steps_120i')


def make_demo(folder):
    """Write what the demo does: a folder for each run, an image and a table."""
    for name in DEMO_RUNS:
        compression = None if name.startswith('dense') else toy.COMPRESSION
        toy.make_work_dir(folder / name, compression, name=f'deeplab_{name}_street')
    (folder / 'demo.png').write_bytes(b'an image')
    (folder / 'demo.txt').write_text('network  mIoU\n')
    return folder


def make_everything(folder):
    """Write all that tools leave in a folder, and return by name why it is left out."""
    toy.make_work_dir(folder / 'run')
    make_demo(folder / 'demo')
    (folder / 'file.txt').write_text('no folder')
    for name, files in dict(
        empty=[],
        tradeoff=['tradeoff.png', 'tradeoff.csv'],
        compression_error=['compression_error.png', 'compression_error.csv'],
        sensitivity=['sensitivity.json', 'allocation.png', 'compression.py'],
        exports=['model.onnx', 'model.json'],
    ).items():
        (folder / name).mkdir()
        for file in files:
            (folder / name / file).write_text('')
    unreadable = toy.make_work_dir(folder / 'half_config')
    for config in unreadable.rglob('*.py'):
        config.write_text(config.read_text()[:60])
    garbage = toy.make_work_dir(folder / 'garbage_log')
    (garbage / '20260101_000000' / 'vis_data' / 'scalars.json').write_bytes(b'\x00\xff{' * 50)
    (folder / 'only_started' / '20260101_000000' / 'vis_data').mkdir(parents=True)
    (folder / 'only_started' / 'config.py').write_text('model = dict()\n')
    nothing = 'It holds no run of a training or test.'
    return {
        'compression_error': nothing,
        'demo': f'It holds the runs {", ".join(sorted(DEMO_RUNS))} in folders of their own.',
        'empty': 'It is empty.',
        'exports': nothing,
        'file.txt': 'It is a file, not a work folder.',
        'garbage_log': 'logged an iteration or a test. 1 of the lines of',
        'half_config': 'must be readable, got',
        'only_started': 'No run in it logged an iteration or a test.',
        'sensitivity': nothing,
        'tradeoff': nothing,
    }


def test_what_is_no_run_is_left_out_and_named(tmp_path):
    folder = tmp_path / 'work_dirs'
    reasons = make_everything(folder)
    out = tmp_path / 'report.html'
    left_out = report_folders(sorted(folder.iterdir()), out)
    assert {each.path.name for each in left_out} == set(reasons)
    for each in left_out:
        assert reasons[each.path.name] in each.reason and each.reason.endswith('.')
        assert str(each) == f'left out {each.path}: {each.reason}'
    page = out.read_text(encoding='utf-8')
    assert '<p class="lede">1 model, by mIoU' in page
    assert all(f'{folder / name} was left out' in page for name in reasons)


def test_what_the_demo_leaves_becomes_a_page(tmp_path):
    demo, page = make_demo(tmp_path / 'demo'), tmp_path / 'demo' / 'report.html'
    assert report_folders([demo / name for name in DEMO_RUNS], page, title='The demo') == []
    text = page.read_text(encoding='utf-8')
    assert '<title>The demo</title>' in text and '4 models, by mIoU' in text
    # Whatever else lies there, the page of an earlier demo too.
    names = [each.path.name for each in report_folders(sorted(demo.iterdir()), page)]
    assert names == ['demo.png', 'demo.txt', 'report.html']


def test_at_least_one_run_is_needed(tmp_path):
    (tmp_path / 'empty').mkdir()
    message = (
        'at least one work folder .* got none. .*empty: It is empty. .*gone: It does not exist.'
    )
    with pytest.raises(ValueError, match=message):
        report_folders([tmp_path / 'empty', tmp_path / 'gone'], tmp_path / 'report.html')


@pytest.mark.parametrize('damage', [lambda content: content[: len(content) // 2], bytes.swapcase])
def test_damaged_files_end_no_report(tmp_path, damage):
    """Each file of a run in turn is cut off, or holds something else."""
    good = toy.make_work_dir(tmp_path / 'good')
    bad = toy.make_work_dir(tmp_path / 'bad', toy.COMPRESSION)
    toy.write_test(bad, '20260103_000000', mIoU=52.0)
    toy.write_latency(bad, 2.0)
    toy.write_checkpoint(bad, dict(layers={}))
    toy.write_image(bad, 'test_x.png_0.png')
    for file in [file for file in bad.rglob('*') if file.is_file()]:
        whole = file.read_bytes()
        file.write_bytes(damage(whole))
        work_dirs, left_out = read_work_dirs([good, bad])
        assert len(work_dirs) + len(left_out) == 2
        report_folders([good, bad], tmp_path / 'report.html')
        file.write_bytes(whole)


@pytest.mark.parametrize(
    'entry',
    [
        dict(iter='7', step='7', loss=1.0),
        dict(iter=None, step=7, loss=1.0),
        dict(iter=7, step=7, loss=10**400),
        dict(iter=7, step=7, loss=[1.0]),
    ],
)
def test_odd_entries_of_a_log_end_no_report(tmp_path, entry):
    folder = toy.make_work_dir(tmp_path / 'run')
    with (folder / '20260101_000000' / 'vis_data' / 'scalars.json').open('a') as log:
        log.write(json.dumps(entry) + '\n')
    assert report_folders([folder], tmp_path / 'report.html') == []


@pytest.mark.parametrize(
    'content', ['[1, 2]', '"mIoU"', '{"mIoU": ' + '9' * 400 + '}', '[' * 10**5]
)
def test_odd_results_of_a_test_end_no_report(tmp_path, content):
    folder = toy.make_work_dir(tmp_path / 'run')
    toy.write_test(folder, '20260103_000000', mIoU=52.0)
    (folder / '20260103_000000' / '20260103_000000.json').write_text(content)
    (folder / 'benchmark.json').write_text(content)
    (folder / 'last_checkpoint').write_bytes(b'\x00\xff' * 300)
    assert report_folders([folder], tmp_path / 'report.html') == []
