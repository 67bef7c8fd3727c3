"""Loading trained networks and taking some of their images."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from torch import nn
from torch.utils.data import Dataset

from mmwcc.presets import compress
from mmwcc.utils import LaunchError, build_model, load_trained, spread_batches


@MODELS.register_module(force=True)
class TrainedToy(BaseModel):
    """One layer; takes a dict that only a ConfigDict can answer by attribute."""

    def __init__(self, width=2, test_cfg=None, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.layer = nn.Conv2d(width, 1, 1)
        self.mode = test_cfg.mode

    def forward(self, inputs, mode='tensor'):
        return [self.layer(x) for x in inputs]


@DATASETS.register_module(force=True)
class NumberedImages(Dataset):
    """Images that say which they are."""

    def __init__(self, length=10, missing=False):
        if missing:
            raise FileNotFoundError('no folder img_dir')
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return dict(inputs=torch.full((2, 4, 4), float(index)))


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'toy.py'
    path.write_text("""
model = dict(type='TrainedToy', test_cfg=dict(mode='whole'))
data_preprocessor = dict(type='BaseDataPreprocessor')
test_dataloader = dict(dataset=dict(type='NumberedImages'))
default_scope = 'mmengine'
""")
    return Config.fromfile(path)


@pytest.fixture
def checkpoint(tmp_path, config):
    model = TrainedToy(test_cfg=config.model.test_cfg)
    torch.save(dict(meta=dict(iter=3), state_dict=model.state_dict()), tmp_path / 'toy.pth')
    return str(tmp_path / 'toy.pth')


def test_a_trained_network(config, checkpoint):
    model, loaded = load_trained(config, checkpoint)
    assert not model.training and model.mode == 'whole' and loaded['meta'] == dict(iter=3)
    torch.testing.assert_close(model.layer.weight, loaded['state_dict']['layer.weight'])
    assert 'data_preprocessor' not in config.model  # the config is left as it was
    batch = next(spread_batches(config, 1))
    assert model.test_step(batch)[0].shape == (1, 4, 4)


@pytest.mark.parametrize(
    ('number', 'expected'),
    [(1, [0]), (4, [0, 2, 5, 7]), (10, list(range(10))), (99, list(range(10)))],
)
def test_images_are_spread(config, number, expected):
    assert [
        int(batch['inputs'][0][0, 0, 0]) for batch in spread_batches(config, number)
    ] == expected


def test_what_cannot_be_loaded_is_refused(config, checkpoint):
    with pytest.raises(LaunchError, match='checkpoint missing.pth does not exist'):
        load_trained(config, 'missing.pth')
    config.model.width = 3
    with pytest.raises(
        LaunchError,
        match=r'toy.pth does not fit the model of .*toy.py: it holds in other shapes layer.weight. '
        'Give the config that it was trained with',
    ):
        load_trained(config, checkpoint)
    config.pop('model')
    with pytest.raises(LaunchError, match='toy.py has no `model`. Give a config'):
        load_trained(config, checkpoint)


def compressed(config):
    act_quant = dict(type='mmwcc.LearnedClipActQuantizer')
    pointwise = dict(type='mmwcc.QuantConv2d', act_quant=act_quant)
    model = compress(config.model, dict(pointwise=pointwise, keep_dense=[]))
    return Config(dict(config.to_dict(), model=model), filename=config.filename)


def test_a_dense_checkpoint_must_be_trained_or_calibrated_first(config, checkpoint):
    with pytest.raises(
        LaunchError, match='is that of a dense model, and this model is compressed. Train it first'
    ) as error:
        load_trained(compressed(config), checkpoint)
    assert 'layer.act_quant' not in str(error.value), 'no wall of keys'


def test_a_compressed_checkpoint_in_a_dense_model(config, tmp_path):
    model = build_model(compressed(config))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'compressed.pth')
    with pytest.raises(
        LaunchError, match='it compresses layer, layer.act_quant, and this model is dense. Give the'
    ):
        load_trained(config, str(tmp_path / 'compressed.pth'))


@pytest.mark.parametrize(
    ('changes', 'split', 'message'),
    [
        (dict(), 'val', 'toy.py has no `val_dataloader`. Give a config with data'),
        (dict(missing=True), 'test', 'The test data of .*toy.py is not there: .*no folder img_dir'),
        (dict(length=0), 'test', 'The test data of .*toy.py holds no images'),
    ],
)
def test_data_that_is_not_there_is_said(config, changes, split, message):
    config.test_dataloader.dataset.update(changes)
    with pytest.raises(LaunchError, match=message):
        next(spread_batches(config, 1, split))
