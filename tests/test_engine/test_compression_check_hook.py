"""Checkpoints that do not fit are refused, with words, before mmengine would have skipped them in
silence.
"""

import logging
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from toy_training import COMPRESSION, ToySegmentor, toy_runner

import mmwcc
from mmwcc.engine.hooks import CompressionCheckHook
from mmwcc.layers import WaveletCompressedConv2d

UNQUANTIZED = {**COMPRESSION, 'weight_quant': None, 'act_quant': None}


def changed(**pointwise):
    return {**COMPRESSION, 'pointwise': {**COMPRESSION['pointwise'], **pointwise}}


def make(folder, compression=COMPRESSION, check=None, schedule=None, **kwargs):
    hooks = dict(
        compression_schedule=schedule,
        random_state=None,
        compression_check=dict(type='mmwcc.CompressionCheckHook', **(check or {})),
    )
    return toy_runner(
        folder, compression=compression, hooks={**hooks, **kwargs.pop('hooks', {})}, **kwargs
    )


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """One checkpoint each of a dense, a compressed, an unquantized WCC and a scheduled run, after
    two iterations.
    """
    folder = tmp_path_factory.mktemp('checkpoints')
    schedule = dict(
        type='mmwcc.CompressionScheduleHook',
        act_bits=dict(type='step', steps=[(0, 32), (1, 8), (2, 4)]),
    )
    make(folder / 'dense', None, length=2).train()
    make(folder / 'compressed', length=2).train()
    make(folder / 'wcc', UNQUANTIZED, length=2).train()
    make(folder / 'scheduled', schedule=schedule, length=2).train()
    return {
        name: folder / name / 'iter_2.pth' for name in ('dense', 'compressed', 'wcc', 'scheduled')
    } | dict(schedule=schedule)


@pytest.fixture
def log(caplog):
    """Collect what mmengine's loggers say, which do not propagate."""

    def attach(runner):
        runner.logger.setLevel(logging.INFO)
        runner.logger.addHandler(caplog.handler)
        caplog.handler.setLevel(logging.INFO)
        return caplog

    return attach


def edited(tmp_path, path, edit):
    checkpoint = torch.load(path, weights_only=False)
    checkpoint = edit(checkpoint) or checkpoint
    torch.save(checkpoint, tmp_path / 'edited.pth')
    return str(tmp_path / 'edited.pth')


def without_stamp(checkpoint):
    """Make a checkpoint one that records nothing, neither in its meta nor in its weights."""
    del checkpoint['meta']['mmwcc']
    checkpoint['state_dict'] = dict(checkpoint['state_dict'])


def without_meta(checkpoint):
    del checkpoint['meta']['mmwcc']


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


@pytest.fixture(scope='module')
def heatmaps(tmp_path_factory):
    """A segmentor that ends in heat maps, and a checkpoint of version 0.1, which kept one of
    them.
    """
    heads = pytest.importorskip('mmdet.models', exc_type=ImportError)

    class HeatMaps(heads.CenterNetHead):
        def forward(self, x):
            return super().forward([x])[0][0]

    @MODELS.register_module(force=True)
    class ToyHeatMaps(ToySegmentor):
        def __init__(self, width=8, **kwargs):
            super().__init__(width, **kwargs)
            self.classify = HeatMaps(width, width, 2)

    def model(*last):
        compression = {**COMPRESSION, 'keep_dense': ['first', *last]}
        return dict(
            default_scope='mmdet',
            model=dict(
                type='mmwcc.CompressedModel', task_type='ToyHeatMaps', compression=compression
            ),
        )

    folder = tmp_path_factory.mktemp('heatmaps')
    make(folder, length=2, **model('classify.offset_head.2')).train()
    return model, str(folder / 'iter_2.pth')


ADVICE = (
    r"keep_dense 'last' keeps all prediction layers dense, and the checkpoint compresses "
    r'classify.heatmap_head.2, classify.wh_head.2, as mmwcc did before this release. Set '
    r"keep_dense=\['first', 'classify.offset_head.2'\] in the compression config"
)


@pytest.mark.parametrize('mode', ['resume', 'test', 'val'])
def test_predictions_that_the_checkpoint_compresses(heatmaps, tmp_path, mode):
    model, path = heatmaps
    run = 'train' if mode == 'resume' else mode
    settings = dict(load_from=path, resume=mode == 'resume', val_interval=1, length=3)
    with pytest.raises(RuntimeError, match=f'^CompressionCheckHook: .*{ADVICE}'):
        getattr(make(tmp_path, **model('last'), **settings), run)()
    getattr(make(tmp_path, **model('classify.offset_head.2'), **settings), run)()


def test_training_from_a_checkpoint_that_compresses_predictions(heatmaps, tmp_path, log):
    model, path = heatmaps
    runner = make(tmp_path, load_from=path, length=1, **model('last'))
    messages = log(runner)
    with pytest.warns(UserWarning, match=f'ToyHeatMaps: {ADVICE}'):
        runner.train()
    assert re.search(f'in the checkpoint only. {ADVICE}', messages.text)


def test_shapes(checkpoints, tmp_path):
    wider = dict(
        type='mmwcc.CompressedModel', task_type='ToySegmentor', compression=COMPRESSION, width=6
    )
    runner = make(tmp_path, model=wider, load_from=str(checkpoints['compressed']))
    with pytest.raises(
        RuntimeError,
        match=r'point.weight: \(8, 8, 1, 1\) in the checkpoint, \(6, 6, 1, 1\) in the '
        r'model; point.bias: \(8,\) .*spatial.*allow_mismatch',
    ):
        runner.test()
    runner = make(
        tmp_path,
        model=wider,
        check=dict(allow_mismatch=[r'point\..*', r'spatial\.(weight|bias)']),
        load_from=str(checkpoints['compressed']),
    )
    runner.train()


def test_one_clip_serves_all_channels_and_not_the_reverse(checkpoints, tmp_path):
    weight_quant = {**COMPRESSION['weight_quant'], 'per_channel': True}
    channels = {**COMPRESSION, 'weight_quant': weight_quant}
    runner = make(tmp_path, channels, load_from=str(checkpoints['compressed']))
    runner.test()
    layer = make(tmp_path, load_from=str(checkpoints['compressed']))
    layer.test()
    clips = runner.model.point.weight_quant.clip_alpha
    assert torch.equal(clips, layer.model.point.weight_quant.clip_alpha.expand(8))
    runner = make(tmp_path, channels, load_from=str(checkpoints['compressed']), resume=True)
    with pytest.raises(
        ValueError, match='upgrade_optimizer_state: .* that of one clip for 8 clips'
    ):
        runner.train()
    make(tmp_path / 'channels', channels, length=2).train()
    runner = make(tmp_path, load_from=str(tmp_path / 'channels' / 'iter_2.pth'))
    with pytest.raises(
        RuntimeError, match=r'clip_alpha: \(8,\) in the checkpoint, \(1,\) in the model'
    ):
        runner.test()


def test_shapes_of_dense_layers_are_left_to_mmengine(checkpoints, tmp_path):
    def reshape(checkpoint):
        weight = checkpoint['state_dict']['classify.weight']
        checkpoint['state_dict']['classify.weight'] = torch.cat([weight, weight])

    make(tmp_path, length=1, load_from=edited(tmp_path, checkpoints['compressed'], reshape)).train()


def test_kernels_of_conv1d_are_accepted(checkpoints, tmp_path):
    def squeeze(checkpoint):
        checkpoint['state_dict']['point.weight'] = checkpoint['state_dict']['point.weight'].squeeze(
            -1
        )

    runner = make(tmp_path, load_from=edited(tmp_path, checkpoints['compressed'], squeeze))
    runner.test()
    weight = torch.load(checkpoints['compressed'], weights_only=False)['state_dict']['point.weight']
    assert torch.equal(runner.model.point.weight, weight)


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
        compression_schedule=dict(checkpoints['schedule']),
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


def stock(folder, compression=COMPRESSION, **kwargs):
    """Build a runner whose config names none of the hooks of mmwcc."""
    none = dict.fromkeys(('compression_schedule', 'compression_check', 'random_state'))
    return toy_runner(folder, compression=compression, hooks=none, **kwargs)


def checks(runner):
    return [hook for hook in runner.hooks if isinstance(hook, CompressionCheckHook)]


def test_every_run_of_a_compressed_model_is_checked(tmp_path):
    assert len(checks(stock(tmp_path))) == 1
    assert not checks(stock(tmp_path, None))
    (own,) = checks(make(tmp_path, check=dict(allow_dense=True)))
    assert own.allow_dense, 'the hook of a config stays the only one'


@pytest.mark.parametrize('mode', ['resume', 'test', 'val'])
def test_a_stock_run_refuses_dense_weights(checkpoints, tmp_path, mode):
    settings = dict(load_from=str(checkpoints['dense']), resume=mode == 'resume', val_interval=1)
    with pytest.raises(RuntimeError, match='got a checkpoint that is dense: point, spatial.'):
        getattr(stock(tmp_path, **settings), 'train' if mode == 'resume' else mode)()
    float_run = stock(tmp_path, UNQUANTIZED, **settings)
    with pytest.raises(RuntimeError, match='is dense or does not record its compression: point.'):
        getattr(float_run, 'train' if mode == 'resume' else mode)()


def test_a_stock_run_trains_from_dense_weights_and_stamps(checkpoints, tmp_path):
    stock(tmp_path, length=2, load_from=str(checkpoints['dense'])).train()
    stamp = torch.load(tmp_path / 'iter_2.pth', weights_only=True)['meta']['mmwcc']
    assert stamp['compression'] == COMPRESSION
    stock(tmp_path, length=3, resume=True).train()
    stock(tmp_path, load_from=str(tmp_path / 'iter_3.pth')).test()


def test_a_stock_run_refuses_to_resume_otherwise(checkpoints, tmp_path):
    quantized = {**COMPRESSION, 'pointwise': dict(type='mmwcc.QuantConv2d')}
    path = str(checkpoints['compressed'])
    with pytest.raises(RuntimeError, match='point: keep_ratio 0.25 in the checkpoint, none in'):
        stock(tmp_path, quantized, load_from=path, resume=True).train()


def test_a_flexible_runner_checks_too(checkpoints, tmp_path):
    from mmengine.runner._flexible_runner import FlexibleRunner
    from toy_training import toy_config

    def run(compression, **overrides):
        none = dict.fromkeys(('compression_schedule', 'compression_check', 'random_state'))
        name = f'flexible-{tmp_path.name}-{len(overrides)}'
        return FlexibleRunner.from_cfg(
            toy_config(
                tmp_path,
                compression=compression,
                hooks=none,
                experiment_name=name,
                env_cfg=dict(dist_cfg=dict(backend='gloo')),
                **overrides,
            )
        )

    assert len(checks(run(COMPRESSION))) == 1 and not checks(run(None, length=1))
    with pytest.raises(RuntimeError, match='got a checkpoint that is dense: point, spatial.'):
        run(COMPRESSION, load_from=str(checkpoints['dense']), length=2).test()


def test_resuming_names_what_load_from_does(checkpoints, tmp_path):
    work_dir = tmp_path / 'run'
    cause = 'Hook: because load_from is set, resume=True resumes from .*pth. '
    weights = edited(tmp_path, checkpoints['compressed'], lambda c: c.pop('optimizer') and None)
    starts = {
        str(checkpoints['dense']): 'to resume, the checkpoint must have',
        weights: 'to resume, a checkpoint must hold the state of the optimizer',
    }

    def refused(hint):
        for path, problem in starts.items():
            message = f'{cause}{hint} That file does not fit: {problem}'
            with pytest.raises(RuntimeError, match=message):
                stock(work_dir, load_from=path, resume=True).train()

    # As long as no run began in the folder, there is none to continue.
    refused(
        'There is no run to continue in .*run: to start one from that file, leave out --resume '
        '.resume=False..'
    )
    stock(work_dir, length=1, load_from=str(checkpoints['dense'])).train()
    refused('To continue the run in .*run, set load_from=None .*--cfg-options load_from=None..')
    stock(work_dir, length=2, load_from=None, resume=True).train()
    assert (work_dir / 'iter_2.pth').is_file()
    # The checkpoints of the run itself are not taken for the start of training.
    own = edited(work_dir, work_dir / 'iter_2.pth', lambda c: c.pop('optimizer') and None)
    with pytest.raises(RuntimeError, match='^CompressionCheckHook: to resume, a checkpoint must'):
        stock(work_dir, load_from=own, resume=True).train()


def test_a_run_that_finds_nothing_to_resume_says_so(checkpoints, tmp_path, log):
    said = 'CompressionCheckHook: resume=True found no checkpoint in '
    cases = [
        (dict(resume=True), True),
        (dict(), False),
        (dict(load_from=str(checkpoints['dense'])), False),
        (dict(load_from=str(checkpoints['compressed']), resume=True, length=3), False),
        (dict(compression=None, resume=True), False),
    ]
    for number, (settings, warns) in enumerate(cases):
        runner = stock(tmp_path / str(number), **{'length': 1, **settings})
        messages = log(runner)
        messages.clear()
        runner.train()
        warnings = [r.getMessage() for r in messages.records if r.levelno == logging.WARNING]
        assert any(text.startswith(said) for text in warnings) == warns


@pytest.mark.parametrize('name', ['compressed', 'wcc'])
@pytest.mark.parametrize('mode', ['train', 'resume', 'test', 'val'])
def test_a_stock_run_of_a_dense_model_refuses_compressed_weights(checkpoints, tmp_path, name, mode):
    settings = dict(load_from=str(checkpoints[name]), resume=mode == 'resume', val_interval=1)
    with pytest.raises(
        RuntimeError, match='^ToySegmentor: a compressed checkpoint needs a compressed model, got'
    ):
        getattr(stock(tmp_path, None, **settings), 'train' if mode == 'resume' else mode)()


def test_a_stock_run_of_a_dense_model_is_left_alone(checkpoints, tmp_path):
    path = str(checkpoints['dense'])
    stock(tmp_path, None, load_from=path).test()
    stock(tmp_path, None, length=1, load_from=path).train()
    assert 'mmwcc' not in torch.load(tmp_path / 'iter_1.pth', weights_only=True)['meta']
    weights = edited(tmp_path, path, lambda c: c.pop('optimizer') and None)
    stock(tmp_path / 'resumed', None, length=3, load_from=weights, resume=True).train()


def test_a_test_with_another_transform_names_the_cause(checkpoints, tmp_path, log):
    quantized = {**COMPRESSION, 'pointwise': dict(type='mmwcc.QuantConv2d')}
    runner = stock(tmp_path, quantized, load_from=str(checkpoints['compressed']))
    messages = log(runner)
    with pytest.raises(RuntimeError, match='of point.act_quant was evaluated .* another compress'):
        runner.test()
    assert 'point: keep_ratio 0.25 in the checkpoint, none in the model' in messages.text


def test_a_dense_run_is_not_overwritten(tmp_path):
    make(tmp_path, None, length=2).train()
    before = (tmp_path / 'iter_2.pth').read_bytes()
    for resume in (False, True):
        with pytest.raises(
            RuntimeError,
            match='^CompressionCheckHook: a compressed model must be trained in a folder of its '
            f"own, got work_dir='{tmp_path}', where iter_2.pth is the checkpoint of a dense model. "
            'This run would overwrite it. Set another work_dir in the compressed config, which may '
            'inherit',
        ):
            stock(tmp_path, resume=resume).train()
    assert (tmp_path / 'iter_2.pth').read_bytes() == before
    (tmp_path / 'iter_2.pth').write_bytes(before[:1000])
    stock(tmp_path, length=1).train()  # a damaged checkpoint is no loss


def named(folder, name, compression, **kwargs):
    """Build a runner of a config file of that name."""
    from toy_training import toy_config

    config = toy_config(folder, compression=compression, **kwargs)
    super(Config, config).__setattr__('_filename', f'{name}.py')
    return Runner.from_cfg(config)


def test_a_run_of_another_compression_is_not_overwritten(tmp_path):
    named(tmp_path, 'quarter', COMPRESSION, length=1).train()
    half = changed(keep_ratio=0.5)
    with pytest.raises(
        RuntimeError, match='iter_1.pth is the checkpoint of quarter, which compresses otherwise'
    ):
        named(tmp_path, 'half', half, length=1).train()
    named(tmp_path, 'renamed', COMPRESSION, length=1).train()
    named(tmp_path, 'renamed', half, length=1).train()  # edited, and run again


def test_other_classes_may_be_trained(checkpoints, tmp_path, log):
    """Where the classifier is compressed too, its shape may differ in training alone."""
    compression = {**COMPRESSION, 'keep_dense': ['stem']}
    make(tmp_path / 'two', compression, length=1, model=many(compression, 2)).train()
    path = str(tmp_path / 'two' / 'iter_1.pth')
    settings = dict(load_from=path, model=many(compression, 3), val_interval=1, length=1)
    with pytest.raises(RuntimeError, match='head.conv_seg.weight: .* in the checkpoint'):
        make(tmp_path / 'three', compression, **settings).test()
    make(tmp_path / 'three', compression, **settings).train()


def many(compression, classes):
    @MODELS.register_module(force=True)
    class ManyClasses(ToySegmentor):
        """Its last layer has the name by which prediction layers are recognized."""

        def __init__(self, classes, **kwargs):
            super().__init__(**kwargs)
            self.head = torch.nn.ModuleDict(dict(conv_seg=torch.nn.Conv2d(2, classes, 1)))

        def forward(self, inputs, labels, mode='tensor'):
            x = self.head['conv_seg'](super().forward(inputs, labels))
            if mode == 'loss':
                return dict(loss=torch.nn.functional.cross_entropy(x, torch.stack(list(labels))))
            return x if mode == 'tensor' else list(x.argmax(1))

    return dict(
        type='mmwcc.CompressedModel',
        task_type='ManyClasses',
        classes=classes,
        compression=compression,
    )


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
