"""Red stays red: from files through every data preprocessor to the figure that is saved."""

import cv2
import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.model import BaseModel, BaseTTAModel
from mmengine.registry import DATASETS, MODELS
from torch import nn
from toy_training import toy_runner

pytest.importorskip('mmcv')
from mmwcc.datasets import LoadImagePair
from mmwcc.engine.input_images import loads_rgb

RED, BLUE = 230, 20
NORMALIZE = dict(mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0])
HOOKS = dict(
    maps=dict(type='mmwcc.FeatureCompressionVisHook'), wae=dict(type='mmwcc.WAEFigureHook')
)


@MODELS.register_module(force=True)
class RedNetwork(BaseModel):
    """A 1x1 convolution, and an auto-encoder both of whose parts are the image."""

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.point = nn.Conv2d(3, 4, 1)

    def transform_losses(self):
        """Marks it as an auto-encoder."""

    def forward(self, inputs, data_samples=None, mode=None):
        return (inputs, inputs) if mode is None else list(self.point(inputs))

    def decode(self, low, high, size):
        return low


@MODELS.register_module(force=True)
class RedTTA(BaseTTAModel):
    """Keeps the result of the first version of an image."""

    def merge_preds(self, data_samples_list):
        return [versions[0] for versions in data_samples_list]


@DATASETS.register_module(force=True)
class RedFile(BaseDataset):
    """One image file, under the names that the loaders of all tasks read."""

    def load_data_list(self):
        file = self.data_root
        camera = np.eye(3, dtype=np.float32)
        return [dict(img_path=file, frame_paths=[file], intrinsics=camera)]


@DATASETS.register_module(force=True)
class RedPair(RedFile):
    """The image as the large one of a pair."""

    def load_data_list(self):
        return [dict(gt_path=self.data_root)]


@DATASETS.register_module(force=True)
class RedRecord(BaseDataset):
    """The same image, from a dataset that loads RGB."""

    channel_order = 'rgb'

    def load_data_list(self):
        return [dict(img=np.ascontiguousarray(cv2.imread(self.data_root)[..., ::-1]), gt_label=0)]


@pytest.fixture
def folder(tmp_path):
    """A folder with an image that is red, and slightly blue."""
    image = np.zeros((40, 48, 3), np.uint8)
    image[..., 2], image[..., 0] = RED, BLUE
    cv2.imwrite(str(tmp_path / 'red.png'), image)
    return tmp_path


def saved_figures(folder, model, dataset):
    """Run a test over the image, and return the figures that the hooks have saved."""
    runner = toy_runner(
        folder,
        compression=None,
        hooks=dict(HOOKS, random_state=None, compression_check=None),
        model=model,
        test_dataloader=dict(
            batch_size=1,
            num_workers=0,
            dataset=dict(dataset, data_root=str(folder / 'red.png'), test_mode=True),
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        test_evaluator=[],
    )
    runner.test()
    files = folder.glob('*/vis_data/vis_image/*.png')
    return {file.stem: cv2.imread(str(file)) for file in files}


def is_red(figure):
    """Tell whether a figure holds the red of the image, and not the same with red and blue
    swapped.
    """
    pixels = figure.reshape(-1, 3).astype(int)
    red = (abs(pixels - (BLUE, 0, RED)).max(1) <= 2).sum()
    blue = (abs(pixels - (RED, 0, BLUE)).max(1) <= 2).sum()
    return red > 500 and blue == 0


def from_file(*steps):
    """Return a dataset that reads the file as the pipeline of a task does."""
    return dict(type='RedFile', pipeline=[dict(step) for step in steps])


def packed_by(name):
    return from_file(dict(type='LoadImageFromFile'), dict(type=name, meta_keys=('img_path',)))


FLIPS = [[dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]]
AUGMENTED = from_file(
    dict(type='LoadImageFromFile'),
    dict(
        type='mmcv.TestTimeAug',
        transforms=[*FLIPS, [dict(type='mmseg.PackSegInputs', meta_keys=('img_path',))]],
    ),
)
DEPTH = from_file(dict(type='mmwcc.LoadDepthFrames'), dict(type='mmwcc.PackDepthInputs'))
PAIRS = dict(
    type='RedPair',
    pipeline=[dict(type='mmwcc.LoadImagePair'), dict(type='mmwcc.PackImagePair')],
)
RECORDS = dict(type='RedRecord', pipeline=[dict(type='mmwcc.PackClsInputs')])
SEG, DET = packed_by('mmseg.PackSegInputs'), packed_by('mmdet.PackDetInputs')
CLS = packed_by('mmwcc.PackClsInputs')


def preprocessor(kind, **settings):
    return dict(type=kind, **NORMALIZE, **settings)


@pytest.mark.parametrize(
    ('data_preprocessor', 'dataset'),
    [
        (preprocessor('mmseg.SegDataPreProcessor'), AUGMENTED),
        (preprocessor('mmseg.SegDataPreProcessor'), SEG),
        (preprocessor('mmseg.SegDataPreProcessor', bgr_to_rgb=True), SEG),
        (preprocessor('mmseg.SegDataPreProcessor', bgr_to_rgb=True), AUGMENTED),
        (preprocessor('mmdet.DetDataPreprocessor'), DET),
        (preprocessor('mmdet.DetDataPreprocessor', bgr_to_rgb=True), DET),
        (preprocessor('mmwcc.DepthDataPreprocessor', bgr_to_rgb=False), DEPTH),
        (preprocessor('mmwcc.DepthDataPreprocessor'), DEPTH),
        (preprocessor('mmwcc.ClsDataPreprocessor'), CLS),
        (preprocessor('mmwcc.ClsDataPreprocessor', to_rgb=True), CLS),
        (preprocessor('mmwcc.ClsDataPreprocessor'), RECORDS),
        (preprocessor('mmwcc.ClsDataPreprocessor', to_rgb=True), RECORDS),
        (dict(type='mmwcc.SRDataPreprocessor'), PAIRS),
    ],
)
def test_red_stays_red(data_preprocessor, dataset, folder):
    pytest.importorskip('mmdet', exc_type=ImportError)
    pytest.importorskip('mmseg')
    import mmseg.datasets
    import mmseg.models  # noqa: F401

    model = dict(type='RedNetwork', data_preprocessor=data_preprocessor)
    if dataset is AUGMENTED:
        model = dict(type='RedTTA', module=model)
    figures = saved_figures(folder, model, dataset)
    assert set(figures) == {'feature_compression_0', 'wae_0'}
    assert all(map(is_red, figures.values()))


def test_datasets_that_load_rgb(folder):
    record = dict(data_root=str(folder / 'red.png'), pipeline=[])
    assert loads_rgb(RedRecord(**record)) and not loads_rgb(RedFile(**record))
    assert loads_rgb(ConcatDataset([RedRecord(**record)]))
    pairs = RedFile(data_root=str(folder / 'red.png'), pipeline=[LoadImagePair()])
    assert loads_rgb(RepeatDataset(pairs, 2)) and not loads_rgb(None)
