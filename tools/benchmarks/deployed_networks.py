"""The networks of the benchmark of deployment, and the images that they are measured on."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from engines import Trained
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmwcc.compression import compress_model
from mmwcc.datasets import LoadSyntheticStreet, SyntheticStreetDataset
from mmwcc.maps import add_map_scales
from mmwcc.post_training import calibrate
from mmwcc.presets import preset
from mmwcc.utils import load_config

__all__ = ['NETWORKS', 'Network', 'TestImages']

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
CALIBRATION_IMAGES = 8


@dataclass(frozen=True)
class Network:
    """A network of the benchmark.

    Attributes:
        config: Path of its config, or its hub path.
        size: Height and width of its images.
        changes: What is changed in the config.
    """

    config: str
    size: tuple[int, int]
    changes: dict[str, Any] = field(default_factory=dict)

    def read(self) -> Config:
        """Return the config, without pretrained weights of the backbone."""
        config = load_config(self.config, self.changes)
        config.model.backbone.init_cfg = None
        return config

    def trained(
        self, size: tuple[int, int], checkpoint: Path | None = None, data: Path | None = None
    ) -> Trained:
        """Return the network in the forms from which engines start.

        Args:
            size: Height and width of the images.
            checkpoint: The weights. Defaults to None: random ones.
            data: Folder of CamVid, of which training images are taken. Defaults to None: rendered
                streets.
        """
        config = self.read()
        scope = config.get('default_scope', 'mmengine')
        init_default_scope(scope)
        torch.manual_seed(0)
        dense = MODELS.build(config.model)
        dense.init_weights() if checkpoint is None else load_checkpoint(dense, str(checkpoint))
        images = [F.interpolate(image, size, mode='bilinear') for image in _images(size, data)]
        images = [_normalized(dense.data_preprocessor, image) for image in images]
        if checkpoint is None:
            _learn_statistics(dense, images)
        return Trained(dense.eval(), _quantized(dense, images), images, scope)


def _images(size: tuple[int, int], data: Path | None) -> Iterator[Tensor]:
    """Yield images (1, 3, H, W) with values from 0 to 255, in the order blue, green, red."""
    if data is not None:
        yield from (image for image, _ in TestImages(data, CALIBRATION_IMAGES, 'train').raw())
        return
    height, width = size
    streets = SyntheticStreetDataset(
        length=CALIBRATION_IMAGES,
        split='train',
        img_scale=(width, height),
        pipeline=[LoadSyntheticStreet()],
    )
    for scene in streets:
        yield torch.from_numpy(scene['img']).permute(2, 0, 1)[None].float()


def _normalized(preprocessor: nn.Module, image: Tensor) -> Tensor:
    # Some preprocessors of mmsegmentation write into the sample how they padded the image.
    return preprocessor(dict(inputs=image, data_samples=[BaseDataElement()]))['inputs']


@torch.no_grad()
def _learn_statistics(dense: nn.Module, images: list[Tensor]) -> None:
    """Give random weights the BatchNorm statistics of some images, so that maps have a range."""
    for module in dense.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
    dense.train()
    for first, second in zip(images[::2], images[1::2], strict=True):
        dense(torch.cat([first, second]), mode='tensor')


def _quantized(dense: nn.Module, images: list[Tensor]) -> nn.Module:
    """Return the network in 8 bits with scales of maps, calibrated.

    The first and the last convolution are quantized too, as other quantizers do it.
    """

    def run(model: nn.Module, image: Tensor) -> object:
        return model(image, mode='tensor')

    model = copy.deepcopy(dense).eval()
    compress_model(model, preset('quant_channel_w8a8', keep_dense=[]), verbose=False)
    calibrate(model, images, forward=run)
    add_map_scales(model, tuple(images[0].shape[2:]))
    calibrate(model, images, forward=run, again=False)
    return model.eval()


class TestImages:
    """Images of CamVid with their labels.

    Args:
        data: Folder of the data set.
        count: How many of its images are taken, evenly spread.
        split: 'test' or 'train'. Defaults to 'test'.
    """

    __test__ = False  # no test case, whatever its name

    def __init__(self, data: Path, count: int, split: str = 'test') -> None:
        config = NETWORKS['deeplabv3plus'].read()
        init_default_scope(config.default_scope)
        wish = copy.deepcopy(config.test_dataloader.dataset)
        wish.data_root = str(data)
        wish.data_prefix = dict(img_path=f'img_dir/{split}', seg_map_path=f'ann_dir/{split}')
        self._data = DATASETS.build(wish)
        self._preprocess = MODELS.build(config.model.data_preprocessor)
        self._chosen = torch.linspace(0, len(self._data) - 1, count).long().tolist()
        self.classes = len(self._data.metainfo['classes'])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        height, width = next(self.raw())[0].shape[2:]
        return height, width

    def __len__(self) -> int:
        return len(self._chosen)

    def raw(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (1, 3, H, W) as they are stored, and labels (H, W)."""
        for index in self._chosen:
            entry = self._data[index]
            yield entry['inputs'][None].float(), entry['data_samples'].gt_sem_seg.data[0]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for image, labels in self.raw():
            yield _normalized(self._preprocess, image), labels


NETWORKS = {
    'deeplabv3plus': Network(
        str(CONFIGS / 'wcc/deeplabv3plus_mobilenetv2-os16_dense_3000i_camvid-256x256.py'),
        (512, 1024),
    ),
    'segnext': Network(
        'mmseg::segnext/segnext_mscan-s_1xb16-adamw-160k_ade20k-512x512.py',
        (512, 512),
        {'model.decode_head.ham_kwargs.rand_init': False},  # the same result at each call
    ),
    'rtmdet': Network('mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py', (640, 640)),
    'efficientdet': Network(
        str(CONFIGS / 'efficientdet/efficientdet_d1_dense_8xb8-300e_coco-640x640.py'), (640, 640)
    ),
}
