"""Checkpoints that do not fit are refused, with words, before mmengine would have skipped them in
silence.

Shapes are in test_compression_check_shapes.py, and runs whose configs name no hook of mmwcc in
test_compression_check_stock.py.
"""

import pytest
import torch
from toy_checks import SCHEDULE, UNQUANTIZED, changed, edited, make, without_meta, without_stamp
from toy_training import COMPRESSION

import mmwcc
from mmwcc.engine.hooks import CompressionCheckHook
from mmwcc.layers import WaveletCompressedConv2d


def test_stamp(checkpoints, tmp_path):
    meta = torch.load(checkpoints['scheduled'], weights_only=False)['meta']
    quantizers = dict(weight_bits=4, act_bits=8)
    assert meta['mmwcc'] == dict(
        version=mmwcc.__version__,
        iter=1,
        epoch=0,
        scheduled=True,
        compression=COMPRESSION,
        layers=dict(
            point=dict(
                type='WaveletCompressedConv2d',
                keep_ratio=0.25,
                levels=2,
                wavelet='haar',
                selection='energy',
                **quantizers,
            ),
            spatial=dict(type='QuantConv2d', **quantizers),
        ),
    )
    torch.save(meta['mmwcc'], tmp_path / 'stamp.pth')
    assert torch.load(tmp_path / 'stamp.pth', weights_only=True) == meta['mmwcc']


def test_stamp_of_classes_has_their_names(tmp_path):
    classes = dict(
        COMPRESSION, pointwise=dict(COMPRESSION['pointwise'], type=WaveletCompressedConv2d)
    )
    make(tmp_path, classes, length=1).train()
    stamp = torch.load(tmp_path / 'iter_1.pth', weights_only=True)['meta']['mmwcc']
    assert stamp['compression'] == COMPRESSION


def test_stamp_of_a_dense_model(checkpoints):
    stamp = torch.load(checkpoints['dense'], weights_only=False)['meta']['mmwcc']
    assert stamp == dict(version=mmwcc.__version__, iter=2, epoch=0, compression=None, layers={})


@pytest.mark.parametrize('name', ['compressed', 'wcc'])
@pytest.mark.parametrize('mode', ['train', 'resume', 'test', 'val'])
def test_compressed_checkpoint_refused_by_dense_model(checkpoints, tmp_path, name, mode):
    runner = make(
        tmp_path, None, load_from=str(checkpoints[name]), resume=mode == 'resume', val_interval=1
    )
    parts = dict(
        wcc='point',
        compressed='point, point.act_quant, point.weight_quant, spatial, spatial.act_quant and 1 '
        'more',
    )[name]
    with pytest.raises(
        RuntimeError,
        match=f'needs a compressed model, got a dense model and a checkpoint with {parts} '
        "compressed. .*type='mmwcc.CompressedModel'",
    ):
        getattr(runner, 'train' if mode == 'resume' else mode)()


def test_keys_tell_where_there_is_no_stamp(checkpoints, tmp_path):
    path = edited(tmp_path, checkpoints['compressed'], without_stamp)
    with pytest.raises(RuntimeError, match='needs a compressed model'):
        make(tmp_path, None, load_from=path).test()
    make(tmp_path, load_from=path).test()
    bare = edited(
        tmp_path,
        path,
        lambda checkpoint: {f'module.{k}': v for k, v in checkpoint['state_dict'].items()},
    )
    with pytest.raises(RuntimeError, match='needs a compressed model'):
        make(tmp_path, None, load_from=bare).test()
    make(tmp_path, load_from=bare).test()


def test_training_starts_from_dense_weights(checkpoints, tmp_path, log):
    runner = make(tmp_path, length=1, load_from=str(checkpoints['dense']))
    messages = log(runner)
    runner.train()
    assert 'compression starts in point, spatial; the checkpoint is dense' in messages.text
    weights = torch.load(checkpoints['dense'], weights_only=False)['state_dict']
    fresh = make(tmp_path, load_from=str(checkpoints['dense']), check=dict(allow_dense=True))
    fresh.test()
    assert all(torch.equal(value, fresh.model.state_dict()[key]) for key, value in weights.items())


@pytest.mark.parametrize('mode', ['resume', 'test', 'val'])
def test_dense_weights_refused_elsewhere(checkpoints, tmp_path, mode, log):
    def run(**check):
        runner = make(
            tmp_path,
            load_from=str(checkpoints['dense']),
            resume=mode == 'resume',
            check=check,
            val_interval=1,
        )
        messages = log(runner)
        getattr(runner, 'train' if mode == 'resume' else mode)()
        return messages

    purpose = 'resume' if mode == 'resume' else 'evaluate'
    with pytest.raises(
        RuntimeError,
        match=f'to {purpose}, the checkpoint must have what the model compresses, got a '
        'checkpoint that is dense: point, spatial. .*allow_dense=True',
    ):
        run()
    if (
        mode != 'resume'
    ):  # the optimizer of a dense run has fewer parameters, which torch itself refuses
        assert 'got a checkpoint that is dense' in run(allow_dense=True).text


def test_unquantized_wcc_without_stamp_may_be_dense(checkpoints, tmp_path):
    make(tmp_path, UNQUANTIZED, load_from=str(checkpoints['wcc'])).test()
    recorded = edited(tmp_path, checkpoints['wcc'], without_meta)
    make(tmp_path, UNQUANTIZED, load_from=recorded).test()
    path = edited(tmp_path, checkpoints['wcc'], without_stamp)
    with pytest.raises(RuntimeError, match='is dense or does not record its compression: point. '):
        make(tmp_path, UNQUANTIZED, load_from=path).test()


@pytest.mark.parametrize('mode', ['resume', 'test'])
def test_quantizer_on_one_side_only(checkpoints, tmp_path, mode):
    def run(name, compression):
        runner = make(
            tmp_path, compression, load_from=str(checkpoints[name]), resume=mode == 'resume'
        )
        getattr(runner, 'train' if mode == 'resume' else mode)()

    with pytest.raises(
        RuntimeError, match='got point.act_quant, spatial.act_quant in the checkpoint only'
    ):
        run('compressed', {**COMPRESSION, 'act_quant': None})
    with pytest.raises(
        RuntimeError, match='dense or not quantized: point.act_quant, point.weight_quant. Train'
    ):
        run('wcc', {**COMPRESSION, 'other': None})


def test_fine_tuning_with_fewer_quantizers_warns(checkpoints, tmp_path, log):
    runner = make(
        tmp_path,
        {**COMPRESSION, 'act_quant': None},
        length=1,
        load_from=str(checkpoints['compressed']),
    )
    messages = log(runner)
    runner.train()
    assert 'got point.act_quant, spatial.act_quant in the checkpoint only' in messages.text


@pytest.mark.parametrize(
    ('compression', 'difference'),
    [
        (changed(keep_ratio=0.5), 'point: keep_ratio 0.25 in the checkpoint, 0.5 in the model'),
        (changed(wavelet='db2'), 'point: wavelet haar in the checkpoint, db2 in the model'),
        (changed(levels=1), 'point: levels 2 in the checkpoint, 1 in the model'),
        (
            {**COMPRESSION, 'act_quant': dict(COMPRESSION['act_quant'], bits=8)},
            'act_bits 4 in the checkpoint, 8 in the model, in 2 layers, such as point',
        ),
    ],
)
def test_changed_state(checkpoints, tmp_path, compression, difference, log):
    path = str(checkpoints['compressed'])
    with pytest.raises(
        RuntimeError, match=f'as the checkpoint records, got {difference}. Resume with'
    ):
        make(tmp_path, compression, load_from=path, resume=True).train()
    for mode, words in (
        ('test', 'The result is not that of the trained model.'),
        ('train', 'Training goes on as the model is configured.'),
    ):
        runner = make(tmp_path, compression, length=1, load_from=path)
        messages = log(runner)
        getattr(runner, mode)()
        assert f'got {difference}. {words}' in messages.text


@pytest.mark.parametrize(
    'priorities', [{}, dict(compression_check=0), dict(compression_schedule=100)]
)
def test_schedule_aligns_before_the_comparison(checkpoints, tmp_path, priorities, log):
    hooks = dict(
        compression_schedule=dict(SCHEDULE),
        compression_check=dict(type='mmwcc.CompressionCheckHook'),
    )
    for name, priority in priorities.items():
        hooks[name]['priority'] = priority
    runner = make(tmp_path, hooks=hooks, load_from=str(checkpoints['scheduled']))
    messages = log(runner)
    runner.test()
    assert runner.model.point.act_quant.bits == 8 and 'must compress as' not in messages.text
    make(
        tmp_path, hooks=hooks, load_from=str(checkpoints['scheduled']), resume=True, length=3
    ).train()


def test_schedule_missing_or_changed(checkpoints, tmp_path, log):
    path = str(checkpoints['scheduled'])
    runner = make(tmp_path, load_from=path)
    messages = log(runner)
    runner.test()
    assert (
        'act_bits 8 in the checkpoint, 4 in the model, in 2 layers, such as point' in messages.text
    )
    later = dict(
        type='mmwcc.CompressionScheduleHook', act_bits=dict(type='step', steps=[(0, 32), (5, 4)])
    )
    for name, schedule, theirs, ours in (
        ('scheduled', later, 8, 32),
        ('scheduled', None, 8, 4),
        ('compressed', later, 4, 32),
    ):
        runner = make(tmp_path, schedule=schedule, load_from=str(checkpoints[name]), resume=True)
        with pytest.raises(
            RuntimeError,
            match=f'act_bits {theirs} in the checkpoint, {ours} in the model, in 2 layers',
        ):
            runner.train()


def test_efficient_conv_bn_eval_is_refused(checkpoints, tmp_path):
    with pytest.raises(
        RuntimeError,
        match=r"efficient_conv_bn_eval must not be set .*got \['stem'\] and 2 such layer",
    ):
        make(tmp_path, efficient_conv_bn_eval=['stem']).train()
    path = str(checkpoints['compressed'])
    make(tmp_path, efficient_conv_bn_eval=['stem'], load_from=path).test()


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(allow_dense='yes'), "allow_dense must be True or False, got 'yes'"),
        (
            dict(allow_mismatch='head'),
            "allow_mismatch must be a list of regular expressions, got 'head'",
        ),
        (dict(allow_mismatch=[1]), r'got \[1\]'),
    ],
)
def test_refusals(kwargs, message):
    with pytest.raises(TypeError, match=message):
        CompressionCheckHook(**kwargs)
