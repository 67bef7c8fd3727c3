"""What OpenMMLab runners do to a compressed model: optimizer, EMA, AMP, DDP, SyncBN, checkpoints,
copies.
"""

import copy
import pickle

import pytest
import torch
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from toy_training import COMPRESSION, run_jobs, toy_runner

from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d
from mmwcc.model_tree.compressed import compressed_layers

PLAIN = dict(compression_schedule=None, random_state=None)
# Clips that stay as calibrated, so that what they should be is known.
STILL_CLIPS = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9),
    paramwise_cfg=dict(custom_keys={'clip_alpha': dict(lr_mult=0.0)}),
)


def quantizers(model):
    """Return all quantizers of a model by name."""
    return {
        f'{name}.{role}': getattr(layer, role)
        for name, layer in compressed_layers(model).items()
        for role in ('weight_quant', 'act_quant')
    }


def test_built_model_is_the_original_class(tmp_path):
    model = toy_runner(tmp_path, hooks=PLAIN).model
    assert type(model).__name__ == 'ToySegmentor'
    assert {name: type(layer) for name, layer in compressed_layers(model).items()} == dict(
        point=WaveletCompressedConv2d, spatial=QuantConv2d
    )


def test_quantizer_parameters_are_trained(tmp_path):
    runner = toy_runner(tmp_path, hooks=PLAIN, length=5)
    before = {
        name: layer.weight.detach().clone()
        for name, layer in compressed_layers(runner.model).items()
    }
    runner.train()
    in_optimizer = {id(p) for group in runner.optim_wrapper.param_groups for p in group['params']}
    momenta = runner.optim_wrapper.optimizer.state
    assert {id(p) for p in runner.model.parameters()} == in_optimizer
    for name, quantizer in quantizers(runner.model).items():
        assert quantizer.initialized, name
        assert momenta[quantizer.clip_alpha]['momentum_buffer'].abs() > 0, name
    for name, weight in before.items():
        assert not torch.equal(weight, compressed_layers(runner.model)[name].weight), name


def test_paramwise_cfg_reaches_the_clips(tmp_path):
    optim_wrapper = dict(
        type='OptimWrapper',
        optimizer=dict(type='SGD', lr=0.1, weight_decay=0.01),
        paramwise_cfg=dict(custom_keys={'clip_alpha': dict(lr_mult=0.1, decay_mult=0.0)}),
    )
    runner = toy_runner(
        tmp_path, hooks=PLAIN, length=1, optim_wrapper=optim_wrapper, param_scheduler=None
    )
    runner.train()
    groups = {id(group['params'][0]): group for group in runner.optim_wrapper.param_groups}
    for quantizer in quantizers(runner.model).values():
        group = groups[id(quantizer.clip_alpha)]
        assert group['lr'] == pytest.approx(0.01) and group['weight_decay'] == 0


def assert_averaged_clips(averaged, model):
    for name, quantizer in quantizers(model).items():
        assert averaged[f'{name}.initialized'], name
        torch.testing.assert_close(
            averaged[f'{name}.clip_alpha'], quantizer.clip_alpha.detach(), msg=name
        )
        assert quantizer.clip_alpha not in (3.0, 8.0), (
            name
        )  # where clips wait for their calibration


@pytest.mark.parametrize(
    'ema', [dict(begin_iter=0), dict(begin_iter=3), dict(begin_iter=0, update_buffers=True)]
)
def test_ema(tmp_path, ema):
    hook = dict(type='EMAHook', **ema)
    runner = toy_runner(
        tmp_path,
        hooks=PLAIN,
        length=5,
        val_interval=2,
        custom_hooks=[hook],
        optim_wrapper=STILL_CLIPS,
    )
    runner.train()
    averaged = torch.load(tmp_path / 'iter_5.pth', weights_only=False)['state_dict']
    assert_averaged_clips(averaged, runner.model)
    assert not torch.equal(averaged['point.weight'], runner.model.point.weight)
    resumed = toy_runner(
        tmp_path, hooks=PLAIN, length=6, custom_hooks=[hook], resume=True, optim_wrapper=STILL_CLIPS
    )
    resumed.train()
    assert resumed.iter == 6


@pytest.mark.parametrize('update_buffers', [False, True])
def test_ema_takes_over_a_clip_that_is_calibrated_later(tmp_path, update_buffers):
    schedule = dict(
        type='mmwcc.CompressionScheduleHook', act_bits=dict(type='step', steps=[(0, 32), (3, 4)])
    )
    runner = toy_runner(
        tmp_path,
        hooks=dict(PLAIN, compression_schedule=schedule),
        length=5,
        optim_wrapper=STILL_CLIPS,
        custom_hooks=[dict(type='EMAHook', update_buffers=update_buffers)],
    )
    runner.train()
    averaged = torch.load(tmp_path / 'iter_5.pth', weights_only=False)['state_dict']
    assert_averaged_clips(averaged, runner.model)


def test_amp(tmp_path, monkeypatch):
    # The wrapper insists on an accelerator, though autocast in bfloat16 runs on CPUs; its loss
    # scaler then rests.
    monkeypatch.setattr(
        'mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available', lambda: True
    )
    amp = dict(
        type='AmpOptimWrapper', dtype='bfloat16', optimizer=dict(type='SGD', lr=0.05, momentum=0.9)
    )
    runner = toy_runner(tmp_path, length=5, optim_wrapper=amp)
    seen = []
    runner.model.norm1.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    runner.train()
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    assert len(losses) == 5 and all(torch.tensor(losses).isfinite())
    assert set(seen) <= {torch.bfloat16, torch.float32}
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in runner.model.parameters())


def test_activation_checkpointing_calibrates_once(tmp_path):
    plain = toy_runner(tmp_path / 'plain', hooks=PLAIN, length=5)
    plain.train()
    checkpointed = toy_runner(
        tmp_path / 'checkpointed',
        hooks=PLAIN,
        length=5,
        activation_checkpointing=['point', 'spatial'],
    )
    checkpointed.train()
    for key, value in plain.model.state_dict().items():
        torch.testing.assert_close(
            checkpointed.model.state_dict()[key], value, rtol=1e-5, atol=1e-6, msg=key
        )


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """Train on two ranks and on one with the joint batches, and resume both; quantization starts in
    iteration 2.
    """
    folder = tmp_path_factory.mktemp('ranks')
    schedule = dict(
        type='mmwcc.CompressionScheduleHook',
        act_bits=dict(type='step', steps=[(0, 32), (2, 4)]),
        keep_ratio=dict(type='step', steps=[(0, 1.0), (3, 0.25)]),
    )
    model = dict(
        type='mmwcc.CompressedModel',
        task_type='ToySegmentor',
        compression=COMPRESSION,
        dropout=0.0,
        norm_eval=True,
    )

    def job(name, batch_size, **extra):
        loader = dict(
            batch_size=batch_size,
            num_workers=0,
            dataset=dict(type='ToyImages', size=12, augment=False),
            sampler=dict(type='InfiniteSampler', shuffle=False),
        )
        overrides = dict(
            work_dir=str(folder / name),
            length=5,
            hooks=dict(compression_schedule=schedule),
            train_dataloader=loader,
            model=model,
        )
        return dict(overrides={**overrides, **extra.pop('overrides', {})}, **extra)

    resume = dict(resume=True, load_from=str(folder / 'two/iter_3.pth'))
    run_jobs(
        folder,
        [job('one', 4), job('two', 2, ranks=2), job('resumed', 2, ranks=2, overrides=resume)],
    )
    return folder


@pytest.mark.slow
def test_two_ranks_are_one_process_on_the_joint_batch(ranks):
    one = torch.load(ranks / 'one/iter_5.pth', weights_only=False)['state_dict']
    two = torch.load(ranks / 'two/iter_5.pth', weights_only=False)['state_dict']
    start = torch.load(ranks / 'one/iter_1.pth', weights_only=False)['state_dict']
    for key, value in one.items():
        # In the step in which they learn, activations are rounded with the clip of one rank.
        tolerance = (
            dict(rtol=0.12, atol=0) if key.endswith('clip_alpha') else dict(rtol=0, atol=5e-3)
        )
        torch.testing.assert_close(two[key], value, **tolerance, msg=key)
    assert one['point.act_quant.initialized'] == 2 and start['point.act_quant.initialized'] == 0


@pytest.mark.slow
def test_ranks_agree(ranks):
    first, second = (torch.load(ranks / f'two/rank{rank}.pth') for rank in (0, 1))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.slow
def test_ranks_resume(ranks):
    two, resumed = (
        torch.load(ranks / name / 'iter_5.pth', weights_only=False)['state_dict']
        for name in ('two', 'resumed')
    )
    assert all(torch.equal(value, resumed[key]) for key, value in two.items())


def test_sync_batchnorm_conversion_keeps_the_layers(tmp_path):
    model = toy_runner(tmp_path, hooks=PLAIN).model
    layers = compressed_layers(model)
    converted = convert_sync_batchnorm(model)
    assert isinstance(converted.norm1, torch.nn.SyncBatchNorm)
    reverted = revert_sync_batchnorm(converted)
    assert compressed_layers(converted) == compressed_layers(reverted) == layers


def test_dense_checkpoint_lacks_only_quantizers(tmp_path):
    dense = toy_runner(tmp_path, compression=None, hooks=PLAIN).model
    compressed = toy_runner(tmp_path, hooks=PLAIN).model
    missing, unexpected = compressed.load_state_dict(dense.state_dict(), strict=False)
    assert not unexpected
    assert missing and all(key.split('.')[-2] in ('weight_quant', 'act_quant') for key in missing)


def test_initialized_quantizers_are_not_calibrated_on_resuming(tmp_path):
    toy_runner(tmp_path, hooks=PLAIN, length=2).train()
    still = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.0))
    runner = toy_runner(
        tmp_path,
        hooks=PLAIN,
        length=4,
        load_from=str(tmp_path / 'iter_2.pth'),
        optim_wrapper=still,
        param_scheduler=None,
    )
    runner.train()
    saved = torch.load(tmp_path / 'iter_2.pth', weights_only=False)['state_dict']
    for name, quantizer in quantizers(runner.model).items():
        assert torch.equal(quantizer.clip_alpha, saved[f'{name}.clip_alpha']), name


@pytest.mark.parametrize(
    'duplicate', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_copies_compute_the_same(tmp_path, duplicate):
    runner = toy_runner(tmp_path, hooks=PLAIN, length=2)
    runner.train()
    model = runner.model.eval()
    twin = duplicate(model)
    images, labels = torch.rand(2, 3, 8, 10), torch.zeros(2, 8, 10, dtype=torch.long)
    assert torch.equal(twin(images, labels), model(images, labels))
    twin.point.keep_ratio = 0.5
    assert model.point.keep_ratio == 0.25
