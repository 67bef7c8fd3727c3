"""The image that tools/demo_depth.py draws."""

import importlib.util
from pathlib import Path

import cv2
import pytest
import torch

pytest.importorskip('mmdet', reason='the configs take its MobileNetV2', exc_type=ImportError)

from mmwcc.utils import build_model, load_config

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / 'configs/depth/monodepth2_mobilenetv2_dense_600i_street-64x192.py')


@pytest.fixture(scope='module')
def demo():
    spec = importlib.util.spec_from_file_location('mmwcc_demo_depth', ROOT / 'tools/demo_depth.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(demo, monkeypatch, *arguments):
    monkeypatch.setattr('sys.argv', ['demo_depth.py', *map(str, arguments)])
    demo.main()


def test_draws_pictures(demo, monkeypatch, tmp_path, capsys):
    model = build_model(load_config(CONFIG))
    torch.save(model.state_dict(), tmp_path / 'depth.pth')
    out = tmp_path / 'out.png'
    run(
        demo,
        monkeypatch,
        CONFIG,
        tmp_path / 'depth.pth',
        '-o',
        out,
        '--images',
        2,
        '--cfg-options',
        'test_dataloader.dataset.img_scale=(96,64)',
    )
    assert '2 images in' in capsys.readouterr().out
    assert cv2.imread(str(out)).std() > 10


def test_panels_of_known_depth(demo):
    """Measured depth is shown in the unit of the prediction: where they agree up to a factor, the
    panels agree.
    """
    from mmengine.dataset import pseudo_collate

    from mmwcc.datasets import PackDepthInputs, SyntheticStreetSequence

    model = build_model(load_config(CONFIG)).eval()
    dataset = SyntheticStreetSequence(
        length=1, img_scale=(96, 64), frame_ids=(1,), pipeline=[PackDepthInputs()]
    )
    batch = pseudo_collate([dataset[0]])
    batch['data_samples'][0].gt_depth = (
        7 * model.test_step(pseudo_collate([dataset[0]]))[0].pred_depth
    )
    image, depth, measured, neighbour, warped, left = demo.panels(model, batch)
    torch.testing.assert_close(torch.from_numpy(measured), torch.from_numpy(depth))
    assert (image * 255).round().astype('uint8')[0, 0].tolist() == dataset[0]['inputs'][
        0, :, 0, 0
    ].flip(0).tolist()
    assert image.shape == neighbour.shape == warped.shape == left.shape == (64, 96, 3)


def test_refuses_other_models(demo, monkeypatch, tmp_path):
    config = tmp_path / 'other.py'
    config.write_text(
        "model = dict(type='mmwcc.ImageClassifier', backbone=dict(type='mmwcc.VGG', depth=11), "
        "head=dict(type='mmwcc.LinearClsHead', num_classes=2, in_channels=512))"
    )
    torch.save(build_model(load_config(str(config))).state_dict(), tmp_path / 'other.pth')
    with pytest.raises(demo.LaunchError, match='must be a Monodepth2, got ImageClassifier'):
        run(demo, monkeypatch, config, tmp_path / 'other.pth')
