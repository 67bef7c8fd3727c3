"""What a model tells when its first training step begins: once, and without a trace."""

import copy
import pickle

import pytest
import torch
from torch import nn

pytest.importorskip('mmengine', reason='costs are counted by its complexity analysis')

from mmwcc.compression import compress_model, first_step  # noqa: E402

COMPRESSION = dict(pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5))


class Net(nn.Module):
    """Takes images and whatever else a training gives, and counts its calls."""

    def __init__(self, needs=None):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.point = nn.Conv2d(16, 16, 1)
        self.last = nn.Conv2d(16, 2, 1)
        self.needs, self.calls = needs, 0

    def forward(self, inputs, samples=None, mode='loss'):
        self.calls += 1
        if self.needs is not None:
            assert len(samples) == len(inputs) and mode in self.needs
        return self.last(self.point(self.norm(self.stem(inputs))))


@pytest.fixture
def told(monkeypatch):
    texts = []

    def record(text, level=20):
        texts.append((level, text))

    for module in ('convert', 'first_step'):
        monkeypatch.setattr(f'mmwcc.compression.{module}.announce', record)
    return texts


IMAGES = torch.rand(4, 3, 32, 48)


@pytest.mark.parametrize('verbose', [True, 'in training'])
def test_once_when_the_first_training_step_begins(told, verbose):
    model = Net()
    report = compress_model(model, COMPRESSION, verbose=verbose)
    at_once = f'\n{report}' if verbose is True else f' {report.summary()}'
    assert told == [(20, f'Compressed Net:{at_once}')] and report.gain is None
    with torch.no_grad():
        model(IMAGES)
    model.eval()(IMAGES)
    assert len(told) == 1
    model.train()(IMAGES).sum().backward()
    assert report.gain.cost.input_shape == (1, 3, 32, 48)
    text = str(report.gain) if verbose is True else f'Compressed Net:\n{report}'
    assert told[1:] == [(20, text)] and text.endswith(str(report.gain))
    model(IMAGES)
    assert len(told) == 2 and not model._forward_pre_hooks


def test_silence_where_it_is_wanted(told):
    model = Net()
    compress_model(model, COMPRESSION, verbose=False)
    model(IMAGES)
    assert told == []


def test_nothing_is_told_again_where_the_size_was_given(told):
    model = Net()
    compress_model(model, COMPRESSION, input_shape=(32, 32))
    model(IMAGES)
    assert len(told) == 1 and 'What this gains for an input of 1x3x32x32' in told[0][1]


def test_the_step_is_the_same_as_without(told):
    told_model, silent = Net(), Net()
    compress_model(told_model, COMPRESSION)
    compress_model(silent, COMPRESSION, verbose=False)
    silent.load_state_dict(told_model.state_dict())
    outputs = []
    for model in (told_model, silent):
        torch.manual_seed(0)
        output = model(IMAGES)
        output.sum().backward()
        outputs.append((output, torch.rand(1), model.stem.weight.grad, model.norm.running_mean))
    assert all(map(torch.equal, *outputs))
    assert told_model.calls == 1 and told_model.training and len(told) == 2


def test_weights_keep_their_gradients_under_autocast(told):
    model = Net()
    compress_model(model, COMPRESSION)
    with torch.autocast('cpu', torch.bfloat16):
        model(IMAGES).sum().backward()
    assert len(told) == 2
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_schedule_does_not_change_what_is_told(told):
    model = Net()
    report = compress_model(model, COMPRESSION)
    model.point.keep_ratio = 1.0
    model(IMAGES)
    assert {layer.keep_ratio for layer in report.gain.cost.layers} == {None, 0.5}


def test_other_values_of_the_batch_are_cut_to_the_first_image(told):
    model = Net(needs=('loss', 'tensor'))
    report = compress_model(model, COMPRESSION)
    model(IMAGES, samples=list('abcd'), mode='loss')
    assert report.gain.cost.input_shape == (1, 3, 32, 48)
    model = Net(needs=('loss', 'tensor'))
    report = compress_model(model, COMPRESSION)
    model(inputs=IMAGES, samples=dict(a=1, b=2, c=3, d=4), mode='loss')
    assert report.gain is None  # only four samples fit a single image, and the step went on


def test_a_model_that_only_trains_is_counted_with_its_loss(told):
    """MaskFormer in mmsegmentation has no mode 'tensor' that runs."""
    plain, model = Net(), Net(needs=('loss',))
    expected = compress_model(plain, COMPRESSION)
    report = compress_model(model, COMPRESSION)
    plain(IMAGES)
    model(inputs=IMAGES, samples=list('abcd'))
    assert report.gain.dense_macs == expected.gain.dense_macs > 0


class OnlyTrains(Net):
    def forward(self, inputs, samples=None, mode='loss'):
        assert torch.is_grad_enabled()
        return super().forward(inputs, samples, mode)


def test_a_failure_is_told_and_stops_nothing(told):
    model = OnlyTrains()
    compress_model(model, COMPRESSION)
    model(IMAGES, samples=list('abcd'))
    level, text = told[-1]
    assert level == 30 and text.startswith('What is gained could not be counted (ValueError: count')
    assert 'get_bops.py' in text


def test_a_small_gain_is_a_warning(told):
    model = Net()
    compress_model(model, dict(pointwise=dict(COMPRESSION['pointwise'], keep_ratio=0.9)))
    model(IMAGES)
    level, text = told[-1]
    assert level == 30 and text.startswith('Wavelets save only')
    level, table = told[-2]
    assert level == 20 and 'What this gains' in table and 'Wavelets save only' not in table


def test_copies_and_pickles_tell_too(told):
    model = Net()
    compress_model(model, COMPRESSION)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        told.clear()
        twin(IMAGES)
        assert len(told) == 1
    assert model._forward_pre_hooks


def test_compressing_again_replaces_what_waits(told):
    model = Net()
    compress_model(model, COMPRESSION)
    compress_model(model, COMPRESSION)
    assert len(model._forward_pre_hooks) == 1


def test_a_compiled_model_is_not_interrupted(told):
    model = Net()
    compress_model(model, COMPRESSION)
    torch.compile(model, backend='eager', fullgraph=True)(IMAGES)
    assert len(told) == 1
    assert isinstance(next(iter(model._forward_pre_hooks.values())), first_step._FirstStep)


class InPlace(Net):
    """Changes what it is given: images, containers and samples."""

    def forward(self, inputs, samples=None, mode='loss'):
        batch = inputs['images'].pop() if isinstance(inputs, dict) else inputs
        if samples is not None:
            samples[0]['boxes'].mul_(2)
        return super().forward(batch.sub_(1.0))


def test_what_the_step_gets_is_not_changed_before(told):
    told_model, silent = InPlace(), InPlace()
    compress_model(told_model, COMPRESSION)
    compress_model(silent, COMPRESSION, verbose=False)
    silent.load_state_dict(told_model.state_dict())
    given = []
    for model in (told_model, silent):
        images, boxes = IMAGES.clone(), [dict(boxes=torch.ones(2)) for _ in IMAGES]
        output = model(dict(images=[images]), samples=boxes)
        given.append((output, images, *(entry['boxes'] for entry in boxes)))
    assert all(map(torch.equal, *given))
    assert len(told) == 2 and 'What this gains' in told[1][1]


class Stream(Net):
    def forward(self, inputs):
        return super().forward(next(inputs))


def test_an_iterator_is_left_to_the_step(told):
    model = Stream()
    compress_model(model, COMPRESSION)
    model(iter([IMAGES])).sum().backward()
    level, text = told[-1]
    assert level == 30 and 'list_iterator is an iterator, which counting would use up' in text
    assert model.calls == 1


def test_buffers_are_those_of_the_step(told):
    class Queue(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer('pointer', torch.zeros(1, dtype=torch.long))

        def forward(self, inputs):
            self.pointer.add_(1)
            return super().forward(inputs)

    model = Queue()
    compress_model(model, COMPRESSION)
    model(IMAGES)
    assert model.pointer == 1 and len(told) == 2
