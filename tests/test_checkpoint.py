"""The stamp in checkpoints: written and read without a runner."""

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmwcc import __version__
from mmwcc.checkpoint import (
    carry_stamp,
    extend_stamp,
    final_checkpoint,
    latest_checkpoint,
    read_stamp,
    recorded_layers,
    save_checkpoint,
    write_stamp,
)
from mmwcc.compression import compress_model

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


def test_the_record_in_the_weights_stands_in_for_a_stamp():
    checkpoint = dict(state_dict=network().state_dict())
    assert recorded_layers(checkpoint) == {'1': STATE}
    assert recorded_layers(checkpoint['state_dict']) == {'1': STATE}
    assert recorded_layers(dict(state_dict=network(False).state_dict())) == {}
    # The stamp is the better witness, for a schedule or a tool may have changed it on purpose.
    extend_stamp(checkpoint, dict(layers={'1': dict(STATE, act_bits=4)}))
    assert recorded_layers(checkpoint)['1']['act_bits'] == 4


@pytest.mark.parametrize('bare', [False, True])
@pytest.mark.parametrize('plain', [False, True])
def test_a_stamp_is_carried_into_the_weights(bare, plain):
    weights = network(False).state_dict()
    weights = dict(weights) if plain else weights
    checkpoint = carry_stamp(weights if bare else dict(state_dict=weights))
    metadata = checkpoint.get('state_dict', checkpoint)._metadata
    assert metadata['']['mmwcc'] == {}, 'what records nothing is dense'
    checkpoint = dict(state_dict=weights)
    extend_stamp(checkpoint, dict(layers={'1': STATE}))
    assert carry_stamp(checkpoint)['state_dict']._metadata['']['mmwcc'] == {'1': STATE}


def test_what_is_no_dictionary_is_left_alone():
    assert carry_stamp(None) is None


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
