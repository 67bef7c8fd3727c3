"""tools/analysis_tools/report.py."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmengine', reason='work folders are read with mmengine', exc_type=ImportError)
pytest.importorskip('cv2', reason='images are read with OpenCV')

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_reports'))
import toy_work_dirs as toy  # noqa: E402

TOOL = Path(__file__).parents[2] / 'tools' / 'analysis_tools' / 'report.py'
spec = importlib.util.spec_from_file_location('report_tool', TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def test_writes_a_page(tmp_path, capsys):
    folders = [str(toy.make_work_dir(tmp_path / name)) for name in ('a_dense', 'a_other')]
    out = tmp_path / 'out.html'
    tool.main(
        [
            *folders,
            '--out',
            str(out),
            '--title',
            'My models',
            '--shape',
            '4',
            '4',
            '--metric',
            'mIoU',
        ]
    )
    printed = capsys.readouterr()
    assert printed.out == f'wrote {out}\n'
    assert printed.err.splitlines() == ['reading: 2 files and folders', 'examining: 2 models']
    text = out.read_text(encoding='utf-8')
    assert '<title>My models</title>' in text and 'one image of 4x4' in text


def test_anything_else_is_left_out_and_named(tmp_path, capsys):
    run = toy.make_work_dir(tmp_path / 'run')
    (tmp_path / 'empty').mkdir()
    out = tmp_path / 'out.html'
    tool.main([str(tmp_path / 'empty'), str(run), str(TOOL), '--out', str(out)])
    printed = capsys.readouterr()
    assert printed.out == f'wrote {out}\n'
    assert printed.err.splitlines()[2:] == [
        f'left out {tmp_path / "empty"}: It is empty.',
        f'left out {TOOL}: It is a file, not a work folder.',
    ]


@pytest.mark.parametrize(
    'arguments, message',
    [
        (
            ['nowhere'],
            'report: at least one work folder .* must be given, got none. nowhere: It does not '
            'exist',
        ),
        (['{folder}', '--metric', 'mAP'], "metric must be one of mIoU, got 'mAP'"),
        (['{folder}', '--images', '-1'], 'images must not be negative'),
    ],
)
def test_errors(tmp_path, arguments, message):
    folder = str(toy.make_work_dir(tmp_path / 'a'))
    with pytest.raises(SystemExit, match=message):
        tool.main([argument.format(folder=folder) for argument in arguments])


def test_out_must_be_html(capsys):
    with pytest.raises(SystemExit):
        tool.main(['x', '--out', 'report.pdf'])
    assert '--out must end in .html, got report.pdf' in capsys.readouterr().err
