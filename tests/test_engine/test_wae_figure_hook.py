"""The figure of an auto-encoder, in a runner and by itself."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn
from toy_training import QuickConfig

from mmwcc.engine.hooks import WAEFigureHook
from mmwcc.engine.hooks.wae_figure_hook import decomposition_figure

PREPROCESSOR = dict(type='mmwcc.ClsDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)


@pytest.fixture
def cifar(tmp_path):
    records = np.random.default_rng(0).integers(0, 256, (4, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    for name in ('data_batch_1', 'test_batch'):
        records.tofile(tmp_path / f'{name}.bin')
    return str(tmp_path)


def runner(cifar, work_dir, model, evaluator, **hook):
    loader = dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='mmwcc.CIFAR10',
            data_root=cifar,
            split='test',
            pipeline=[dict(type='mmwcc.PackClsInputs')],
        ),
    )
    return Runner.from_cfg(
        QuickConfig(
            dict(
                default_scope='mmengine',
                work_dir=str(work_dir),
                model=model,
                log_level='WARNING',
                train_dataloader=loader,
                val_dataloader=loader,
                val_cfg=dict(),
                val_evaluator=evaluator,
                test_dataloader=loader,
                test_cfg=dict(),
                test_evaluator=evaluator,
                train_cfg=dict(by_epoch=True, max_epochs=3),
                experiment_name=work_dir.name,
                optim_wrapper=dict(optimizer=dict(type='Adam', lr=1e-3)),
                visualizer=dict(
                    type='Visualizer',
                    vis_backends=[dict(type='LocalVisBackend')],
                    name=work_dir.name,
                ),
                default_hooks=dict(wae_figure=dict(type='mmwcc.WAEFigureHook', **hook)),
            )
        )
    )


def test_figures_of_validations_and_tests(cifar, tmp_path):
    made = runner(
        cifar,
        tmp_path / 'figures',
        dict(type='mmwcc.WAE', data_preprocessor=PREPROCESSOR),
        dict(type='mmwcc.ReconstructionPSNR'),
        interval=2,
        num_images=3,
    )
    made.train()
    # The first and the third of three validations.
    files = sorted(tmp_path.rglob('vis_image/wae*.png'))
    assert [file.name for file in files] == ['wae_1.png', 'wae_3.png']
    assert cv2.imread(str(files[0])).shape == (3 * (160 + 26), 4 * (160 + 4), 3)
    made.test()
    assert len(list(tmp_path.rglob('vis_image/wae*.png'))) >= 2


def test_a_model_without_auto_encoder_is_refused(cifar, tmp_path):
    head = dict(type='mmwcc.LinearClsHead', num_classes=10, in_channels=3 * 32 * 32)
    made = runner(
        cifar,
        tmp_path / 'none',
        dict(type='mmwcc.ImageClassifier', backbone=dict(type='ImageAsFeature'), head=head),
        dict(type='mmwcc.Accuracy'),
    )
    with pytest.raises(
        RuntimeError, match='the model must have a mmwcc.WAE, got none in ImageClassifier'
    ):
        made.test()


@MODELS.register_module(name='ImageAsFeature', force=True)
class ImageAsFeature(nn.Identity):
    """A backbone that does nothing."""


class Halves(nn.Module):
    """A transform that can be read off the figure: every second pixel, and what the left column
    lacks to the right.
    """

    def transform_losses(self):
        """Marks it as an auto-encoder."""

    def forward(self, x):
        return x[:, :, ::2, ::2], x[:, :, ::2, 1::2] - x[:, :, ::2, ::2]

    def decode(self, low, high, size):
        return low.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_what_the_figure_shows():
    x = torch.zeros(1, 3, 80, 160)
    x[:, :, :, 80:] = 200
    x[:, :, :, 1] = 100
    figure = decomposition_figure(Halves(), x)
    assert figure.shape == (80 + 26, 4 * 164, 3)
    image, low, high, decoded = (figure[22:-4, 164 * i + 2 : 164 * i + 162] for i in range(4))
    np.testing.assert_array_equal(image, x[0].permute(1, 2, 0))
    assert low[0, 0, 0] == 0 and low[0, -1, 0] == 255
    # I_H without its mean: 100 - 1.25 in its first column, amplified to white; slightly darker than
    # grey elsewhere.
    assert high[0, 0, 0] == 255 and high[0, -1, 0] == round(127.5 - 127.5 * 1.25 / 98.75)
    assert decoded[0, 1, 0] == 0 and decoded[0, 80, 0] == 200
    assert (figure[:22] < 100).any()  # captions


def test_captions_fit_into_their_panels():
    """Large numbers end before the edge of the panel."""
    figure = decomposition_figure(
        Halves(), torch.linspace(-5e6, 5e6, 3 * 80 * 160).view(1, 3, 80, 160)
    )
    captions = figure[:22].min((0, 2))
    for panel in range(4):
        assert captions[164 * panel + 161 : 164 * panel + 164].min() == 255


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match='interval and num_images must be at least 1, got 0 and 4'):
        WAEFigureHook(interval=0)
