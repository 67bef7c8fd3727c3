"""The size of the images that a network is tested with, from its config."""

import pytest

pytest.importorskip('mmengine', reason='configs are those of mmengine')

from mmengine.config import Config  # noqa: E402

from mmwcc.reports import image_shape  # noqa: E402
from mmwcc.reports.image_sizes import input_size  # noqa: E402


class Resize:
    """A transform that a pure-Python config names by its class."""


@pytest.mark.parametrize(
    'config, expected',
    [
        (
            dict(
                test_dataloader=dict(
                    dataset=dict(img_scale=(16, 8), pipeline=[dict(type='Resize', scale=(4, 2))])
                )
            ),
            (8, 16),
        ),
        (
            dict(
                test_dataloader=dict(
                    dataset=dict(
                        type='RepeatDataset',
                        dataset=dict(
                            pipeline=[
                                dict(type='LoadImageFromFile'),
                                dict(type='mmdet.Resize', scale=(1333, 800)),
                            ]
                        ),
                    )
                )
            ),
            (800, 1333),
        ),
        (
            dict(
                val_dataloader=dict(dataset=dict(pipeline=[dict(type='Resize', scale_factor=2)])),
                model=dict(data_preprocessor=dict(size=(64, 32))),
            ),
            (64, 32),
        ),
        (
            dict(
                test_dataloader=dict(
                    dataset=dict(pipeline=[dict(type=dict), dict(type=Resize, scale=(20, 10))])
                )
            ),
            (10, 20),
        ),
        (dict(test_dataloader=None, model=dict()), None),
    ],
)
def test_input_size(config, expected):
    assert input_size(Config(config)) == expected


def resized(*steps, **model):
    """Return a config that resizes test images to 240x320, and what else is to be done."""
    pipeline = [dict(type='Pad', size=(999, 999)), dict(type='Resize', scale=(320, 240)), *steps]
    return Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline)), model=dict(**model)))


@pytest.mark.parametrize(
    'pads, expected',
    [
        ([dict(type='Pad', size_divisor=32)], (256, 320)),
        ([dict(type='mmdet.Pad', size=(352, 288))], (288, 352)),
        ([dict(type='Pad', pad_to_square=True)], (320, 320)),
        ([dict(type='Pad', pad_to_square=True, size_divisor=128)], (384, 384)),
        ([dict(type='Pad', size_divisor=50), dict(type='Pad', size_divisor=32)], (256, 352)),
        ([dict(type='ResizeToMultiple', size_divisor=64)], (256, 320)),
        ([dict(type='Pad', size_divisor=None)], (240, 320)),
    ],
)
def test_pads_of_the_pipeline_count(pads, expected):
    assert input_size(resized(*pads)) == image_shape(resized(*pads)) == expected


@pytest.mark.parametrize(
    'preprocessor, expected',
    [
        (dict(pad_size_divisor=32), (256, 320)),
        (dict(test_cfg=dict(size_divisor=64)), (256, 320)),
        (dict(test_cfg=dict(size=(250, 300))), (250, 320)),
        (dict(size=(512, 512), size_divisor=32), (240, 320)),  # in training alone
        (None, (240, 320)),
    ],
)
def test_pads_of_the_data_preprocessor_count(preprocessor, expected):
    assert input_size(resized(data_preprocessor=preprocessor)) == expected
    config = resized()
    config.data_preprocessor = preprocessor  # mmengine hands it to the model
    assert input_size(config) == expected


def test_images_of_a_dataset_are_padded_too():
    dataset = dict(img_scale=(320, 240), pipeline=[dict(type='Pad', size_divisor=32)])
    assert input_size(Config(dict(val_dataloader=dict(dataset=dataset)))) == (256, 320)
