"""What CompressionCheckHook says of weights whose shapes differ, and of layers that only one side
compresses.
"""

import re

import pytest
import torch
from mmengine.registry import MODELS
from toy_checks import edited, make
from toy_training import COMPRESSION, ToySegmentor


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
