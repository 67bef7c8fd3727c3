"""Compressed models judge the weights that they load, whoever loads them and however."""

import copy
import io
import warnings

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import mmwcc  # noqa: F401  (carries stamps to the models that mmengine loads)
from mmwcc.compression import allow_dense, compress_model
from mmwcc.cost import count_cost
from mmwcc.inference import to_integer
from mmwcc.post_training import calibrate, reestimate_batch_norm
from mmwcc.quantizers import LearnedClipActQuantizer

QUANTIZED = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5, levels=2),
    other=dict(type='mmwcc.QuantConv2d'),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
    keep_dense=['classify'],
)
FLOAT = dict(pointwise=QUANTIZED['pointwise'], keep_dense=['classify'])
DENSE = r'got a checkpoint that is dense: backbone\.point'
UNRECORDED = (
    r'got a checkpoint that is dense or does not record its compression: backbone\.point\. '
    r'Train the model from it first\. If it was trained with this compression, .*allow_dense'
)


class Net(nn.Module):
    """A backbone with a layer of each kind, and a classifier that stays dense."""

    def __init__(self, classes=2):
        super().__init__()
        self.backbone = nn.ModuleDict(
            dict(
                point=nn.Conv2d(3, 8, 1),
                norm=nn.BatchNorm2d(8),
                spatial=nn.Conv2d(8, 8, 3),
            )
        )
        self.classify = nn.Conv2d(8, classes, 1)

    def forward(self, x):
        for layer in self.backbone.values():
            x = layer(x)
        return self.classify(x)


def image():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def dense(**kwargs):
    return Net(**kwargs).eval()


def fresh(compression=QUANTIZED, **kwargs):
    """Return a compressed network that was never called."""
    model = Net(**kwargs)
    compress_model(model, compression, verbose=False)
    return model


def trained(compression=QUANTIZED, **changes):
    model = fresh({**compression, **changes})
    model(image())
    return model.eval()


def silently(action):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        return action()


@pytest.fixture
def mmengine_load(tmp_path):
    """Load a checkpoint file as init_model, init_detector and all inferencers do."""
    runner = pytest.importorskip('mmengine.runner')

    def load(model, checkpoint):
        torch.save(checkpoint, tmp_path / 'file.pth')
        path = str(tmp_path / 'file.pth')
        runner.load_checkpoint(model, path, map_location='cpu', logger='silent')
        return model.eval()

    return load


def test_dense_weights_are_not_evaluated():
    model = fresh()
    model.load_state_dict(dense().state_dict(), strict=False)
    for _ in range(2):
        with pytest.raises(
            RuntimeError,
            match=f'^Net: to be evaluated, .*{DENSE}, backbone.spatial. Train the model from it or '
            r'calibrate .* call mmwcc.compression.allow_dense\(model\)\.$',
        ):
            model.eval()(image())


def test_training_starts_from_dense_weights_without_a_word():
    model = fresh()
    silently(lambda: model.load_state_dict(dense().state_dict(), strict=False))
    silently(lambda: model.train()(image()))
    silently(lambda: model.eval()(image()))


def test_calibration_starts_from_dense_weights():
    model = fresh()
    model.load_state_dict(dense().state_dict(), strict=False)
    calibrate(model.eval(), [image()])
    silently(lambda: model(image()))
    reestimate_batch_norm(model, [image()])


def test_statistics_are_estimated_from_dense_weights(mmengine_load):
    model = mmengine_load(fresh(FLOAT), dict(state_dict=dense().state_dict()))
    reestimate_batch_norm(model, [image()])
    silently(lambda: model(image()))


def test_the_cost_of_dense_weights_is_counted():
    model = fresh()
    model.load_state_dict(dense().state_dict(), strict=False)
    assert count_cost(model.eval(), (16, 16)).total.macs > 0
    with pytest.raises(RuntimeError, match=DENSE):
        model(image())


def test_dense_weights_may_be_allowed():
    model = fresh()
    model.load_state_dict(dense().state_dict(), strict=False)
    allow_dense(model)
    model.eval()(image())


def test_a_quantizer_without_a_clip_is_named():
    with pytest.raises(
        RuntimeError,
        match='^LearnedClipActQuantizer of backbone.point.act_quant was evaluated before its clip '
        'was learned. Load a checkpoint of the compressed model, or train or calibrate the model '
        r'first. If training does not reach this layer, call mmwcc.compression.allow_dense',
    ):
        fresh().eval()(image())


@pytest.mark.parametrize('compression', [QUANTIZED, FLOAT])
@pytest.mark.parametrize('assign', [False, True])
def test_its_own_weights_are_welcome(compression, assign):
    saved = trained(compression)
    model = fresh(compression)
    silently(lambda: model.load_state_dict(saved.state_dict(), assign=assign))
    assert torch.equal(silently(lambda: model.eval()(image())), saved(image()))


@pytest.mark.parametrize('compression', [QUANTIZED, FLOAT])
def test_its_own_weights_are_welcome_as_a_plain_dictionary(compression):
    model = fresh(compression)
    model.load_state_dict(dict(trained(compression).state_dict()))
    silently(lambda: model.eval()(image()))


@pytest.mark.parametrize('compression', [QUANTIZED, FLOAT])
def test_files_that_mmengine_loads(mmengine_load, compression):
    bare = trained(compression).state_dict()
    for checkpoint in (bare, dict(state_dict=bare), dict(meta={}, state_dict=bare)):
        silently(lambda c=checkpoint: mmengine_load(fresh(compression), c)(image()))
    for checkpoint in (dense().state_dict(), dict(state_dict=dense().state_dict())):
        message = UNRECORDED if compression is FLOAT else DENSE
        with pytest.raises(RuntimeError, match=message):
            mmengine_load(fresh(compression), checkpoint)(image())


def test_a_stamp_vouches_for_weights_without_a_record(mmengine_load):
    """As in checkpoints of version 0.1."""
    weights = dense().state_dict()
    layer = dict(type='WaveletCompressedConv2d', keep_ratio=0.5, levels=2, wavelet='haar')
    layers = {'backbone.point': dict(layer, selection='energy')}
    checkpoint = dict(meta=dict(mmwcc=dict(layers=layers)), state_dict=weights)
    silently(lambda: mmengine_load(fresh(FLOAT), checkpoint)(image()))


def test_a_checkpoint_with_more_quantizers_is_not_evaluated(mmengine_load):
    for compression in ({**QUANTIZED, 'act_quant': None}, {**QUANTIZED, 'other': None}):
        model = mmengine_load(fresh(compression), trained().state_dict())
        with pytest.raises(
            RuntimeError,
            match='a model must compress what its checkpoint compresses, got backbone..* in the '
            'checkpoint only. Use the compression config it was trained with.',
        ):
            model(image())


def test_another_keep_ratio_is_a_warning_in_evaluation_alone():
    half = dict(QUANTIZED['pointwise'], keep_ratio=0.25)
    model = fresh({**QUANTIZED, 'pointwise': half})
    silently(lambda: model.load_state_dict(trained().state_dict()))
    other = copy.deepcopy(model)
    with pytest.warns(
        UserWarning,
        match='^Net: the model must compress as the checkpoint records, got backbone.point: '
        'keep_ratio 0.5 in the checkpoint, 0.25 in the model. The result is not that of the',
    ):
        model.eval()(image())
    silently(lambda: model(image()))  # once
    silently(lambda: other.train()(image()))


def test_differences_of_many_layers_are_counted():
    compression = {**QUANTIZED, 'keep_dense': []}
    model = fresh({**compression, 'act_quant': dict(QUANTIZED['act_quant'], bits=4)})
    model.load_state_dict(trained(compression).state_dict())
    with pytest.warns(
        UserWarning,
        match='got act_bits 8 in the checkpoint, 4 in the model, in 3 layers, such as backbone.poi',
    ):
        model.eval()(image())


@pytest.mark.parametrize(
    'theirs, words',
    [
        (QUANTIZED['pointwise'], r'\(no keep_ratio\), and there .* from wavelet coefficients'),
        (QUANTIZED['other'], r'\(it has a keep_ratio\), and there the clip .* from pixels'),
    ],
)
def test_the_clip_of_another_transform_is_the_cause_of_the_error(mmengine_load, theirs, words):
    kinds = [QUANTIZED['pointwise'], QUANTIZED['other']]
    (ours,) = (kind for kind in kinds if kind != theirs)
    state = trained(pointwise=theirs).state_dict()
    model = mmengine_load(fresh({**QUANTIZED, 'pointwise': ours}), dict(state_dict=state))
    message = f'point.act_quant was evaluated before .* another compression: .*{words}'
    with pytest.warns(UserWarning, match='keep_ratio'), pytest.raises(RuntimeError, match=message):
        model(image())
    mmengine_load(model, dict(state_dict=fresh({**QUANTIZED, 'pointwise': ours}).state_dict()))
    with pytest.raises(RuntimeError, match='Load a checkpoint of the compressed model'):
        model(image())


@pytest.mark.parametrize('compression', [QUANTIZED, FLOAT])
def test_a_dense_model_refuses_compressed_weights(mmengine_load, compression):
    checkpoint = dict(state_dict=trained(compression).state_dict())
    with pytest.raises(
        RuntimeError,
        match='^Net: a compressed checkpoint needs a compressed model, got a dense model and a '
        'checkpoint with backbone.point',
    ):
        mmengine_load(dense(), checkpoint)
    mmengine_load(dense(), dict(state_dict=dense().state_dict()))


def test_a_quantizer_in_a_layer_of_a_user_is_no_compressed_model(mmengine_load):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Module()
            self.layer.act_quant = LearnedClipActQuantizer()

    mmengine_load(Own(), dict(state_dict=Own().state_dict()))


def test_integers_on_one_side_are_not_loaded(mmengine_load):
    integer = fresh(dict(QUANTIZED, integer=True))
    weights = trained()
    with pytest.raises(RuntimeError, match='^Net: an integer model needs an integer checkpoint'):
        integer.load_state_dict(weights.state_dict(), strict=False)
    to_integer(weights, verbose=False)
    with pytest.raises(
        RuntimeError,
        match='^Net: an integer checkpoint needs an integer model, got one without integers in '
        r'backbone\.point\. Set integer=True in the compression config, or use the config that',
    ):
        mmengine_load(fresh(), weights.state_dict())
    integer.load_state_dict(weights.state_dict())
    assert torch.equal(integer.eval()(image()), weights(image()))


def test_a_part_of_a_model_is_left_to_its_loader():
    model = fresh()
    prefixed = {k: v for k, v in dense().state_dict().items() if k.startswith('classify.')}
    guarded = fresh()
    guarded.load_state_dict(dense().state_dict(), strict=False)
    for each in (model, guarded):
        each.load_state_dict(prefixed, strict=False)
    with pytest.raises(RuntimeError, match=DENSE):
        guarded.eval()(image())
    silently(lambda: model.train()(image()))
    # As init_cfg=dict(type='Pretrained', prefix='backbone.') does.
    part = {k[9:]: v for k, v in dense().state_dict().items() if k.startswith('backbone.')}
    silently(lambda: model.backbone.load_state_dict(part, strict=False))
    with pytest.raises(RuntimeError, match='backbone.point.act_quant was evaluated before its'):
        model.eval()(image())  # the clips belonged to the weights before
    silently(lambda: model.train()(image()))
    silently(lambda: model.eval()(image()))


def test_another_number_of_classes():
    model = fresh(classes=5)
    weights = trained().state_dict()
    del weights['classify.weight'], weights['classify.bias']
    silently(lambda: model.load_state_dict(weights, strict=False))
    silently(lambda: model.eval()(image()))


def copies(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    yield copy.deepcopy(model)
    yield torch.load(buffer, weights_only=False)


def test_copies_judge_for_themselves():
    for model in copies(fresh()):
        model.load_state_dict(dense().state_dict(), strict=False)
        with pytest.raises(RuntimeError, match=DENSE):
            model.eval()(image())
        model.load_state_dict(trained().state_dict())
        silently(lambda m=model: m(image()))
    model = fresh()
    model.load_state_dict(dense().state_dict(), strict=False)
    for guarded in copies(model):
        with pytest.raises(RuntimeError, match=DENSE):
            guarded.eval()(image())
        guarded.train()(image())
        guarded.eval()(image())


def test_averaged_models():
    averages = pytest.importorskip('mmengine.model')
    model = trained()
    averaged = averages.ExponentialMovingAverage(model, update_buffers=True)
    averaged.update_parameters(model)
    other = averages.ExponentialMovingAverage(fresh(), update_buffers=True)
    silently(lambda: other.load_state_dict(averaged.state_dict()))
    silently(lambda: other.eval()(image()))


def test_models_without_memory_are_filled():
    with torch.device('meta'):
        model = fresh()
    silently(lambda: model.load_state_dict(trained().state_dict(), assign=True))
    silently(lambda: model.eval()(image()))


class Wrapper(nn.Module):
    """Names the model as DistributedDataParallel does."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


def test_models_in_wrappers():
    silently(lambda: Wrapper(fresh(FLOAT)).load_state_dict(Wrapper(trained(FLOAT)).state_dict()))
    wrapped = Wrapper(fresh())
    wrapped.load_state_dict(Wrapper(dense()).state_dict(), strict=False)
    with pytest.raises(RuntimeError, match=DENSE):
        wrapped.eval()(image())


def test_a_record_of_a_wrapper(mmengine_load):
    saved = trained(FLOAT)
    loaded = mmengine_load(fresh(FLOAT), dict(state_dict=Wrapper(saved).state_dict()))
    assert torch.equal(silently(lambda: loaded(image())), saved(image()))
    other = fresh(dict(FLOAT, pointwise=dict(QUANTIZED['pointwise'], keep_ratio=0.25)))
    with pytest.warns(UserWarning, match='keep_ratio 0.5 in the checkpoint, 0.25 in the model'):
        mmengine_load(other, Wrapper(saved).state_dict())(image())


@pytest.mark.parametrize('name', ['', 'body.'])
def test_a_loader_may_rename_what_was_recorded(tmp_path, name):
    runner = pytest.importorskip('mmengine.runner')
    torch.save(trained(FLOAT).state_dict(), tmp_path / 'file.pth')
    model = Net().backbone if not name else nn.ModuleDict(dict(body=Net().backbone))
    compress_model(model, dict(FLOAT, keep_dense=[]), verbose=False)
    renamed = [(r'^backbone\.', name)]
    path = str(tmp_path / 'file.pth')
    runner.load_checkpoint(model, path, logger='silent', revise_keys=renamed)
    silently(lambda: model.eval().get_submodule(f'{name}point')(image()))


def test_a_later_part_keeps_the_guard_on_the_rest():
    model, good = fresh(), trained().state_dict()
    model.load_state_dict(dense().state_dict(), strict=False)
    part = {key: value for key, value in good.items() if 'spatial' in key}
    model.load_state_dict(part, strict=False)
    with pytest.raises(RuntimeError, match=rf'{DENSE}\. Train'):
        model.eval()(image())


def test_every_method_of_a_network_is_guarded(mmengine_load):
    model = mmengine_load(fresh(FLOAT), dense().state_dict())
    with pytest.raises(RuntimeError, match=UNRECORDED):
        model.backbone.point(image())


@pytest.mark.parametrize('compression', [QUANTIZED, FLOAT])
def test_training_by_another_method_is_training(mmengine_load, compression):
    model = mmengine_load(fresh(compression), dense().state_dict()).train()
    Net.forward(model, image())  # as a loss or a training step calls the parts
    silently(lambda: model.eval()(image()))


@pytest.mark.parametrize('compression', [QUANTIZED, FLOAT])
def test_averages_outside_mmengine(mmengine_load, compression):
    model = mmengine_load(fresh(compression), dense().state_dict())
    average = AveragedModel(model, use_buffers=True)
    with pytest.raises(RuntimeError, match='that is dense'):
        average.eval()(image())
    model.train()(image()).sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    average.update_parameters(model)
    silently(lambda: average(image()))


def test_a_failed_calibration_lifts_nothing():
    for task in (calibrate, reestimate_batch_norm):
        model = fresh()
        model.load_state_dict(dense().state_dict(), strict=False)
        with pytest.raises(ValueError, match=task.__name__):
            task(model.eval(), [])
        with pytest.raises(RuntimeError, match=DENSE):
            model(image())


def test_compressing_twice_judges_once():
    model = fresh()
    before = len(model._load_state_dict_pre_hooks)
    compress_model(model, dict(QUANTIZED, keep_dense=['backbone.point']), verbose=False)
    assert len(model._load_state_dict_pre_hooks) == before == 1
