"""mmwcc/reports/run_images.py: predictions, other figures, and images that are neither."""

import os

import pytest

pytest.importorskip('mmengine', reason='work folders are read with mmengine', exc_type=ImportError)
cv2 = pytest.importorskip('cv2', reason='images are read with OpenCV')

import toy_work_dirs as toy  # noqa: E402

from mmwcc.reports.work_dirs import read_work_dir  # noqa: E402


def write(folder, *names):
    """Write images into a folder, and return their paths."""
    source = toy.write_image(folder, 'x.png')
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(source.read_bytes())
    source.unlink()
    return [folder / name for name in names]


def test_the_newest_image_of_each_name(tmp_path):
    folder = toy.make_work_dir(tmp_path)
    files = [toy.write_image(folder, f'val_x.png_{step}.png') for step in (9, 10)]
    other = toy.write_image(folder, 'test_y.jpg_0.png')
    for file in files:
        os.utime(file, (5, 5))
    images = read_work_dir(folder).images
    assert images.predictions == {'val_x.png': files[1], 'test_y.jpg': other}


def test_figures_of_hooks_are_no_predictions(tmp_path):
    folder = toy.make_work_dir(tmp_path)
    toy.write_image(folder, 'feature_compression_20.png')
    newest = toy.write_image(folder, 'feature_compression_40.png')
    own = toy.write_image(folder, 'loss_curve_3.png')
    images = read_work_dir(folder).images
    assert images.predictions == {}
    assert images.figures == {'feature_compression': newest, 'loss_curve': own}


def test_plots_of_tools_are_not_shown(tmp_path):
    folder = toy.make_work_dir(tmp_path)
    names = ['loss.png', 'tradeoff/tradeoff.png', '20260101_000000/curve.jpg', 'val_x.png']
    write(folder, *names)
    images = read_work_dir(folder).images
    assert images.predictions == images.figures == {}


def test_test_images_of_mmdetection_are_numbered(tmp_path):
    folder = toy.make_work_dir(tmp_path)
    first, second = (toy.write_image(folder, f'test_img_{number}.png') for number in (1, 2))
    assert read_work_dir(folder).images.predictions == dict(test_img_1=first, test_img_2=second)


@pytest.mark.parametrize('where', ['drawn', '20260101_000000/drawn', '20260101_000000/a/drawn'])
@pytest.mark.parametrize('out', ['drawn', '/gone/with/the/folder/drawn'])
def test_folders_that_mmdetection_draws_in(tmp_path, where, out):
    hooks = dict(visualization=dict(type='DetVisualizationHook', draw=True, test_out_dir=out))
    folder = toy.make_work_dir(tmp_path)
    config = toy.make_config()
    config.default_hooks.update(hooks)
    toy.write_run(folder, '20260102_000000', [], config)
    (file, _) = write(folder, f'{where}/2007_000032.jpg', 'other/2007_000033.jpg')
    assert read_work_dir(folder).images.predictions == {'2007_000032': file}
