"""The stamp in checkpoints: written, read and compared without a runner."""

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmwcc import __version__
from mmwcc.checkpoint import (
    compare,
    extend_stamp,
    final_checkpoint,
    latest_checkpoint,
    read_stamp,
    save_checkpoint,
    write_stamp,
)
from mmwcc.compression import compress_model
from mmwcc.inference import to_integer
from mmwcc.model_tree import LayerState

COMPRESSION = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
    keep_dense=['0'],
)
CONFIG = Config(
    dict(model=dict(type='mmwcc.CompressedModel', task_type='Net', compression=COMPRESSION))
)
STATE = dict(
    type='WaveletCompressedConv2d',
    keep_ratio=0.5,
    selection='energy',
    wavelet='haar',
    levels=3,
    weight_bits=8,
    act_bits=8,
)


def network(compressed=True, **changes):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1))
    if compressed:
        compress_model(model, {**COMPRESSION, **changes}, verbose=False)
        model(torch.randn(1, 3, 16, 16))
    return model


def checkpoint_of(model, config=CONFIG):
    checkpoint = dict(state_dict=model.state_dict())
    write_stamp(checkpoint, model, config)
    return checkpoint


def test_a_stamp_is_plain_data(tmp_path):
    checkpoint = dict(meta=dict(iter=7, epoch=1))
    write_stamp(checkpoint, network(), CONFIG)
    assert read_stamp(checkpoint) == dict(
        version=__version__, compression=COMPRESSION, layers={'1': STATE}, iter=7, epoch=1
    )
    torch.save(checkpoint, tmp_path / 'stamp.pth')
    assert torch.load(tmp_path / 'stamp.pth', weights_only=True) == checkpoint


def test_entries_of_others_are_kept():
    checkpoint = {}
    extend_stamp(checkpoint, dict(iter=3, epoch=0, scheduled=True))
    write_stamp(checkpoint, network(False), dict(model=nn.Module()))
    extend_stamp(checkpoint, dict(cost=dict(macs=1)))
    assert read_stamp(checkpoint) == dict(
        version=__version__,
        compression=None,
        layers={},
        iter=3,
        epoch=0,
        scheduled=True,
        cost=dict(macs=1),
    )


@pytest.mark.parametrize(
    'checkpoint', [{}, dict(meta=None), dict(meta=dict(mmwcc=None)), dict(meta=dict(seed=3))]
)
def test_no_stamp_reads_as_an_empty_one(checkpoint):
    assert read_stamp(checkpoint) == {}


def test_saving_writes_weights_stamp_and_config(tmp_path):
    model, meta = network(), dict(seed=3)
    save_checkpoint(model, CONFIG, tmp_path / 'new' / 'model.pth', meta)
    saved = torch.load(tmp_path / 'new' / 'model.pth')
    assert saved['meta']['seed'] == 3 and read_stamp(saved)['layers'] == {'1': STATE}
    assert torch.equal(saved['state_dict']['1.weight'], model[1].weight)
    assert Config.fromfile(tmp_path / 'new' / 'model.py').model == CONFIG.model
    assert meta == dict(seed=3)  # of the checkpoint that the weights come from


def test_a_checkpoint_fits_its_own_model():
    found = compare(checkpoint_of(network()), network())
    assert found.in_checkpoint == {'1', '1.weight_quant', '1.act_quant'} and list(found.layers) == [
        '1'
    ]
    assert not (found.only_in_checkpoint or found.only_in_model or found.shapes or found.states)


def test_what_one_side_lacks():
    assert compare(checkpoint_of(network(False)), network()).only_in_model == {'1'}
    found = compare(checkpoint_of(network()), network(False))
    assert found.only_in_checkpoint == found.in_checkpoint and not found.layers
    assert compare(checkpoint_of(network(act_quant=None)), network()).only_in_model == {
        '1.act_quant'
    }
    assert compare(checkpoint_of(network()), network(act_quant=None)).only_in_checkpoint == {
        '1.act_quant'
    }


def test_integers_on_one_side():
    integer = network()
    to_integer(integer.eval(), verbose=False)
    assert compare(checkpoint_of(network()), integer).integers_only_in_model == {'1'}
    assert compare(checkpoint_of(integer), network()).integers_only_in_checkpoint == {'1'}


def test_states_are_those_of_the_moment():
    checkpoint, model = (
        checkpoint_of(network()),
        network(pointwise=dict(COMPRESSION['pointwise'], keep_ratio=0.25)),
    )
    assert compare(checkpoint, model).states == [('1', 'keep_ratio', 0.5, 0.25)]
    scheduled = {'1': LayerState.of(model[1]).under(dict(keep_ratio=0.5))}
    assert compare(checkpoint, model, scheduled).states == []


def test_shapes():
    checkpoint = checkpoint_of(network())
    checkpoint['state_dict']['1.weight'] = torch.zeros(6, 8, 1, 1)
    assert compare(checkpoint, network()).shapes == {'1.weight': ((6, 8, 1, 1), (4, 8, 1, 1))}


def test_the_last_checkpoint_of_a_training(tmp_path):
    assert (
        final_checkpoint(Config(dict(work_dir='w', train_cfg=dict(max_iters=40)))).as_posix()
        == 'w/iter_40.pth'
    )
    assert (
        final_checkpoint(Config(dict(work_dir='w', train_cfg=dict(max_epochs=3)))).as_posix()
        == 'w/epoch_3.pth'
    )
    assert latest_checkpoint(tmp_path / 'missing') is None and latest_checkpoint(tmp_path) is None
    (tmp_path / 'last_checkpoint').write_text('w/iter_20.pth')
    assert latest_checkpoint(tmp_path) == 'w/iter_20.pth'
