"""A dense teacher beside the model that trains."""

import copy
import math

import pytest

pytest.importorskip('mmengine')
import torch  # noqa: E402
from mmengine.registry import MODELS  # noqa: E402
from toy_training import COMPRESSION, ToySegmentor, run_jobs, toy_config, toy_runner  # noqa: E402

from mmwcc.engine.hooks import DistillationHook  # noqa: E402
from mmwcc.engine.hooks.distillation_hook import pixelwise_kl, relative_error  # noqa: E402

OFF = dict(compression_schedule=None)


@pytest.fixture(scope='module')
def dense(tmp_path_factory):
    """Path of a dense checkpoint, and its weights."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp('dense') / 'dense.pth'
    weights = ToySegmentor().state_dict()
    torch.save(dict(meta={}, state_dict=weights), path)
    return str(path), weights


def train(folder, dense, hook=None, **kwargs):
    """Train from the dense weights; return the runner and the losses of every iteration."""
    kwargs.setdefault('length', 3)
    runner = toy_runner(
        folder,
        hooks={**OFF, **({'distillation': hook} if hook else {}), **kwargs.pop('hooks', {})},
        load_from=dense[0],
        **kwargs,
    )
    losses = []
    step = runner.model.parse_losses
    runner.model.parse_losses = lambda found: (
        losses.append({key: value.detach().clone() for key, value in found.items()}) or step(found)
    )
    runner.train()
    return runner, losses


def config(dense, **kwargs):
    return dict(type='mmwcc.DistillationHook', checkpoint=dense[0], **kwargs)


def test_kl_by_hand():
    student = torch.tensor([0.5, 0.5]).log().view(1, 2, 1, 1).expand(1, 2, 1, 2)
    teacher = torch.tensor([[0.75, 0.5], [0.25, 0.5]]).log().view(1, 2, 1, 2)
    by_hand = (
        0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5) + 0
    ) / 2  # the second pixel agrees
    assert pixelwise_kl(student, teacher).item() == pytest.approx(by_hand, rel=1e-6)
    assert pixelwise_kl(teacher, teacher).item() == 0
    # At temperature 2 the odds of 3 become those of sqrt(3).
    warm = math.sqrt(3) / (1 + math.sqrt(3))
    by_hand = 4 * (warm * math.log(2 * warm) + (1 - warm) * math.log(2 * (1 - warm))) / 2
    assert pixelwise_kl(student, teacher, 2.0).item() == pytest.approx(by_hand, rel=1e-5)
    assert pixelwise_kl(student.half(), teacher.half()).dtype == torch.float32


def test_kl_has_the_gradient_of_the_cross_entropy():
    student = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    teacher = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(pixelwise_kl(student, teacher), student)
    torch.testing.assert_close(
        gradient, (student.softmax(1) - teacher.softmax(1)).detach() / (2 * 4 * 5)
    )


def test_relative_error_by_hand():
    assert relative_error(
        torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])
    ).item() == pytest.approx(4 / 17)
    assert relative_error(torch.zeros(3), torch.zeros(3)).item() == 0


def test_a_dense_student_starts_at_its_teacher(tmp_path, dense):
    """Without dropout and with frozen BatchNorm, as the teacher has them, both agree until the
    first step.
    """
    model = dict(type='ToySegmentor', dropout=0.0, norm_eval=True)
    _, losses = train(
        tmp_path, dense, config(dense, features={'point': 0.5}), compression=None, model=model
    )
    assert [losses[0][f'distillation.loss_{name}'].item() for name in ('kl', 'features')] == [0, 0]
    assert losses[1]['distillation.loss_kl'] > 0 and losses[1]['distillation.loss_features'] > 0


def test_the_loss_is_that_of_both_networks_on_the_batch(tmp_path, dense):
    """Recomputed with networks of our own, whose compressed layers learn their clips from the same
    batch.
    """
    seen = {}

    class Keep(DistillationHook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if not seen:
                seen.update(model=_bare_copy(runner.model), batch=data_batch)

    runner = toy_runner(
        tmp_path,
        hooks=OFF,
        load_from=dense[0],
        length=1,
        model=dict(
            type='mmwcc.CompressedModel',
            task_type='ToySegmentor',
            dropout=0.0,
            compression=COMPRESSION,
        ),
    )
    runner.register_hook(Keep(dense[0], weight=0.7, temperature=3.0, features={'spatial': 0.3}))
    losses = []
    step = runner.model.parse_losses
    runner.model.parse_losses = lambda found: losses.append(found) or step(found)
    runner.train()

    teacher = ToySegmentor().eval()
    teacher.load_state_dict(dense[1])
    outputs = []
    for network in (seen['model'], teacher):
        network.spatial.register_forward_hook(lambda layer, args, output: outputs.append(output))
        outputs.append(network(**seen['batch']))
    ours, logits, theirs, target = outputs
    assert losses[0]['distillation.loss_kl'].item() == pytest.approx(
        0.7 * pixelwise_kl(logits, target, 3.0).item(), rel=1e-5
    )
    assert losses[0]['distillation.loss_features'].item() == pytest.approx(
        0.3 * relative_error(ours, theirs).item(), rel=1e-5
    )
    assert losses[0]['distillation.loss_kl'].requires_grad


def _bare_copy(model):
    model = copy.deepcopy(model)
    for module in model.modules():
        module._forward_hooks.clear(), module._forward_pre_hooks.clear()
    return model


def test_nothing_else_changes(tmp_path, dense):
    """With a factor too small to count, training is bit for bit that without the hook, and no key
    is added.
    """
    plain, _ = train(tmp_path / 'plain', dense)
    taught, losses = train(tmp_path / 'taught', dense, config(dense, weight=1e-30))
    assert len(losses) == 3 and all('distillation.loss_kl' in found for found in losses)
    weights = [
        torch.load(tmp_path / name / 'iter_3.pth', weights_only=False)['state_dict']
        for name in ('plain', 'taught')
    ]
    assert list(weights[0]) == list(weights[1]) == list(plain.model.state_dict())
    assert all(
        torch.equal(one, other)
        for one, other in zip(*(found.values() for found in weights), strict=True)
    )
    assert len(taught.model._forward_hooks) == len(plain.model._forward_hooks)
    assert not taught.model._forward_pre_hooks
    assert not taught.model.classify._forward_hooks


def test_it_has_an_effect(tmp_path, dense):
    plain, _ = train(tmp_path / 'plain', dense)
    taught, _ = train(tmp_path / 'taught', dense, config(dense))
    assert not torch.equal(plain.model.point.weight, taught.model.point.weight)


def test_the_teacher_stays_as_it_was(tmp_path, dense):
    class Keep(DistillationHook):
        def after_train(self, runner):
            self.kept = self.teacher
            super().after_train(runner)

    runner = toy_runner(tmp_path, hooks=OFF, length=3, load_from=dense[0])
    hook = Keep(dense[0])
    runner.register_hook(hook)
    runner.train()
    assert hook.teacher is None and type(hook.kept) is ToySegmentor and not hook.kept.training
    assert all(torch.equal(value, dense[1][key]) for key, value in hook.kept.state_dict().items())
    assert not any(parameter.requires_grad for parameter in hook.kept.parameters())


def test_resuming_and_averaging_and_validating(tmp_path, dense):
    """Resumed training ends where the uninterrupted one ends, with the weights of EMAHook."""
    hooks = dict(ema=dict(type='EMAHook'))
    settings = dict(val_interval=2, hooks=hooks)
    train(tmp_path / 'whole', dense, config(dense), length=4, **settings)
    train(tmp_path / 'part', dense, config(dense), length=2, **settings)
    resumed = toy_runner(
        tmp_path / 'rest',
        hooks={**OFF, **hooks, 'distillation': config(dense)},
        length=4,
        val_interval=2,
        resume=True,
        load_from=str(tmp_path / 'part' / 'iter_2.pth'),
    )
    resumed.train()
    whole, rest = (
        torch.load(tmp_path / name / 'iter_4.pth', weights_only=False) for name in ('whole', 'rest')
    )
    for part in ('state_dict', 'ema_state_dict'):
        assert list(whole[part]) == list(rest[part]) and not any(
            'teacher' in key for key in whole[part]
        )
        assert all(torch.equal(value, rest[part][key]) for key, value in whole[part].items())


def test_mixed_precision(tmp_path, dense):
    """The teacher runs in the precision of the model, its loss in float32."""
    runner, losses = train(
        tmp_path, dense, config(dense), length=2, compression=None, model=dict(type='ToySegmentor')
    )
    model, hook = runner.model, DistillationHook(dense[0])
    hook.before_train(runner)
    batch = next(iter(runner.train_dataloader))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = model(**batch, mode='loss')
        positional = model(batch['inputs'], batch['labels'], 'loss')
    assert (
        found['distillation.loss_kl'].dtype == torch.float32
        and 'distillation.loss_kl' in positional
    )
    assert isinstance(model(**batch), torch.Tensor)
    hook.after_train(runner)
    assert set(model(**batch, mode='loss')) == {'loss'}


@pytest.mark.slow
def test_compiled(tmp_path, dense):
    """A compiled training step, which runs both networks, their hooks and the losses, is the step
    that is not.
    """
    torch._dynamo.reset()
    runs = {}
    for name, extra in (('plain', {}), ('compiled', dict(compile=dict(backend='eager')))):
        runner = toy_runner(
            tmp_path / name,
            length=3,
            val_interval=2,
            load_from=dense[0],
            **extra,
            hooks={**OFF, 'distillation': config(dense, features={'point': 0.5})},
        )
        runner.train()
        scalars = runner.message_hub.log_scalars
        losses = [
            scalars[f'train/distillation.loss_{key}'].data[0].tolist() for key in ('kl', 'features')
        ]
        runs[name] = losses, runner.model.state_dict()
    assert (
        len(losses[0]) == len(losses[1]) == 3
        and torch._dynamo.utils.counters['stats']['unique_graphs']
    )
    torch.testing.assert_close(runs['compiled'], runs['plain'], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_on_two_processes(tmp_path, dense):
    hooks = {**OFF, 'distillation': config(dense, features={'point': 0.5})}
    run_jobs(
        tmp_path,
        [
            dict(
                ranks=2,
                overrides=dict(
                    work_dir=str(tmp_path / 'run'), length=2, hooks=hooks, load_from=dense[0]
                ),
            )
        ],
    )
    one, other = (torch.load(tmp_path / 'run' / f'rank{rank}.pth') for rank in (0, 1))
    assert not any('teacher' in key for key in one)
    assert all(
        torch.equal(one[key], other[key]) for key in one if 'norm' not in key
    )  # statistics are each rank's own
    assert not torch.equal(one['point.weight'], dense[1]['point.weight'])


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(checkpoint=None), TypeError, 'checkpoint must be a path, got None'),
        (dict(weight=0), ValueError, 'weight must be positive, got 0'),
        (dict(temperature=-1.0), ValueError, 'temperature must be positive, got -1.0'),
        (
            dict(features=['point']),
            TypeError,
            r"features must be a dict of names and factors, got \['point'\]",
        ),
        (dict(features=dict(point=0.0)), ValueError, 'point must be positive, got 0.0'),
    ],
)
def test_bad_arguments(kwargs, error, message):
    with pytest.raises(error, match=f'DistillationHook: {message}'):
        DistillationHook(**{'checkpoint': 'dense.pth', **kwargs})


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (
            dict(logits='decode_head.conv_seg'),
            ValueError,
            "got 'decode_head.conv_seg', which the model does not have",
        ),
        (
            dict(features={'stem.act_quant': 1.0}),
            ValueError,
            "got 'stem.act_quant', which the model does not have",
        ),
        (
            dict(features={'point.act_quant': 1.0}),
            ValueError,
            "got 'point.act_quant', which the teacher does not have",
        ),
        (
            dict(
                model=dict(
                    type='mmwcc.CompressedModel', task_type='ToySegmentor', compression=COMPRESSION
                )
            ),
            ValueError,
            'model must be the config of a dense network',
        ),
        (
            dict(model=dict(type='ToySegmentor', width=4)),
            RuntimeError,
            'checkpoint must fit the dense network exactly',
        ),
    ],
)
def test_refused_before_the_first_iteration(tmp_path, dense, kwargs, error, message):
    with pytest.raises(error, match=f'DistillationHook: .*{message}'):
        train(tmp_path, dense, config(dense, **kwargs))
    assert not list(tmp_path.glob('*.pth'))


def test_a_layer_that_does_not_run(tmp_path, dense):
    @MODELS.register_module(name='LazySegmentor', force=True)
    class LazySegmentor(ToySegmentor):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.idle = torch.nn.Identity()

    with pytest.raises(
        RuntimeError, match=r'idle must return the same shapes in model and teacher, got \[\] and'
    ):
        train(
            tmp_path,
            dense,
            config(dense, features=dict(idle=1.0)),
            compression=None,
            model=dict(type='LazySegmentor'),
        )


def test_two_prediction_layers_need_a_name():
    from mmwcc.engine.hooks.distillation_hook import _prediction_layer

    heads = torch.nn.ModuleDict(
        dict(
            decode_head=torch.nn.ModuleDict(dict(conv_seg=torch.nn.Conv2d(1, 1, 1))),
            auxiliary_head=torch.nn.ModuleDict(dict(conv_seg=torch.nn.Conv2d(1, 1, 1))),
        )
    )
    assert _prediction_layer(heads) == 'decode_head.conv_seg'
    heads['bbox_head'] = torch.nn.ModuleDict(dict(conv_cls=torch.nn.Conv2d(1, 1, 1)))
    with pytest.raises(
        ValueError, match='logits must name one layer of a model with 2 prediction layers'
    ):
        _prediction_layer(heads)


def test_a_linear_layer_predicts_too():
    from mmwcc.engine.hooks.distillation_hook import _prediction_layer

    model = torch.nn.ModuleDict(
        dict(
            stem=torch.nn.Conv2d(1, 1, 1),
            head=torch.nn.ModuleDict(dict(fc_cls=torch.nn.Linear(1, 1))),
        )
    )
    assert _prediction_layer(model) == 'head.fc_cls'


def test_config_is_left_alone(tmp_path, dense):
    settings = toy_config(tmp_path, hooks={**OFF, 'distillation': config(dense)}).model.to_dict()
    runner, _ = train(tmp_path, dense, config(dense), length=1)
    assert runner.cfg.model.to_dict().items() >= settings.items()
