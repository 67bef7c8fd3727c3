"""Ways to train that OpenMMLab offers, with a compressed segmentor."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from toy_training import toy_config, toy_runner

from mmwcc.compression import compress_model

PLAIN = dict(compression_schedule=None, random_state=None)


def test_gradients_of_two_batches_are_accumulated(tmp_path):
    """Twice the same batch is one step on that batch."""
    batch = dict(
        inputs=torch.rand(3, 3, 8, 10, generator=torch.Generator().manual_seed(0)),
        labels=torch.ones(3, 8, 10, dtype=torch.long),
    )
    states = []
    for count in (1, 2):
        torch.manual_seed(0)
        model = toy_runner(tmp_path / str(count), hooks=PLAIN).model.train()
        model.dropout.p = 0.0
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        wrapper = OptimWrapper(optimizer, accumulative_counts=count)
        wrapper.initialize_count_status(model, 0, count)
        for _ in range(count):
            model.train_step(batch, wrapper)
        states.append(dict(model.named_parameters()))
    for name, parameter in states[0].items():
        torch.testing.assert_close(states[1][name], parameter, msg=name)


@pytest.mark.parametrize(
    'settings',
    [
        dict(backend='eager'),
        # What ``compile=True`` compiles with; without the option, it draws other random numbers.
        pytest.param(dict(options=dict(fallback_random=True)), marks=pytest.mark.slow),
    ],
    ids=['traced', 'compiled'],
)
def test_a_compiled_run_trains_as_without(tmp_path, settings):
    states = []
    for name, options in (('plain', {}), ('compiled', dict(compile=settings))):
        torch._dynamo.reset()
        runner = toy_runner(tmp_path / name, hooks=PLAIN, length=2, **options)
        runner.train()
        states.append(runner.model.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_flexible_runner_trains(tmp_path):
    from mmengine.runner._flexible_runner import FlexibleRunner

    config = toy_config(
        tmp_path,
        hooks=PLAIN,
        length=3,
        experiment_name=f'flexible-{tmp_path.name}',
        env_cfg=dict(dist_cfg=dict(backend='gloo')),
    )
    runner = FlexibleRunner.from_cfg(config)
    before = runner.model['type'] if isinstance(runner.model, dict) else None
    runner.train()
    assert before == 'mmwcc.CompressedModel' and runner.iter == 3
    state = torch.load(tmp_path / 'iter_3.pth', weights_only=False)['state_dict']
    assert state['point.act_quant.initialized'] and state['spatial.weight_quant.initialized']


def test_a_backbone_that_recomputes_its_activations():
    """``with_cp`` runs each block twice: the clips are learned once, and gradients are the same."""
    backbones = pytest.importorskip('mmseg.models.backbones', exc_type=ImportError)
    compression = dict(
        pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5),
        other=dict(type='mmwcc.QuantConv2d'),
        weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
        act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
    )
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = backbones.ResNet(
            18,
            num_stages=2,
            strides=(1, 2),
            dilations=(1, 1),
            out_indices=(1,),
            base_channels=8,
            stem_channels=8,
            with_cp=with_cp,
        )
        compress_model(model, compression, verbose=False)
        # The blocks are recomputed where their input has a gradient.
        model.train()
        model(image.clone().requires_grad_())[0].square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
