"""Modules that know the height and width of their tokens tell the linear layers inside."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

from mmwcc.layers import WaveletCompressedLinear
from mmwcc.model_tree import announced_grids, connect_grids, replace_layers, twin

pytestmark = pytest.mark.filterwarnings('ignore:.*tokens must lie on maps:UserWarning')


def compressed(model, keep_ratio=1.0):
    """Return a copy whose linear layers are wavelet compressed and connected with their maps."""
    model = copy.deepcopy(model)
    model.eval()
    made = {
        layer: WaveletCompressedLinear.from_linear(layer, keep_ratio=keep_ratio)
        for layer in model.modules()
        if isinstance(layer, nn.Linear) and type(layer).__name__ == 'Linear'
    }
    replace_layers(model, made)
    connect_grids(model)
    return model


def maps_of(model):
    """Return the maps that each linear layer of a compressed model reads, by name."""
    found = {}

    def note(name):
        def hook(layer, inputs):
            found[name] = [part.size for part in layer.maps(inputs[0].shape) if part.levels]

        return hook

    for name, layer in model.named_modules():
        if isinstance(layer, WaveletCompressedLinear):
            layer.register_forward_pre_hook(note(name))
    return found


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x, hw_shape):
        return x + self.down(self.up(x).relu())


class Stage(nn.Module):
    """Two blocks on maps of different sizes, and a layer that no module tells anything."""

    def __init__(self):
        super().__init__()
        self.large, self.small, self.query = Block(), Block(), nn.Linear(8, 8)

    def forward(self, x):
        height, width = x.shape[2:]
        x = self.large(x.flatten(2).transpose(1, 2), hw_shape=(height, width))
        x = x.reshape(len(x), height, width, 8)[:, ::2, ::2].flatten(1, 2)
        x = self.small(x, (-(-height // 2), -(-width // 2)))
        return self.query(x.mean(1, keepdim=True))


def test_layers_read_what_the_module_around_them_is_called_with():
    stage = Stage()
    model = compressed(stage)
    maps = maps_of(model)
    for size in ((8, 12), (14, 10)):
        x, half = torch.randn(2, 8, *size), (size[0] // 2, size[1] // 2)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            torch.testing.assert_close(model(x), stage(x), rtol=1e-4, atol=1e-5)
        assert maps == {
            'large.up': [size],
            'large.down': [size],
            'small.up': [half],
            'small.down': [half],
            'query': [],
        }
    assert model.query.token_grid is None and model.small.up.place == 'small.up'


@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), twin]
)
def test_copies_have_grids_of_their_own(copied):
    model = compressed(Stage(), 0.25)
    expected = model(torch.ones(1, 8, 16, 24))
    other = copied(model)
    other(torch.ones(1, 8, 8, 8))
    assert model.large.up.token_grid.sizes == ((16, 24),)
    assert other.large.up.token_grid.sizes == ((8, 8),)
    assert other.large.up.token_grid is other.large.down.token_grid
    torch.testing.assert_close(other(torch.ones(1, 8, 16, 24)), expected)


def test_a_layer_that_modules_share_does_not_take_the_map_of_another():
    stage = Stage()
    stage.small.up = stage.large.up
    model = compressed(stage, 0.25)
    assert model.large.up.token_grid is None and model.large.down.token_grid is not None
    maps = maps_of(model)
    model(torch.randn(1, 8, 8, 12))
    assert maps['large.up'] == [] and maps['small.down'] == [(4, 6)]


@pytest.mark.parametrize('size', [None, 12, 'large', ((2, 3), (4, 5))], ids=str)
def test_an_argument_of_another_meaning_announces_nothing(size):
    model = compressed(Block())
    with pytest.warns(UserWarning, match='tokens must lie on maps'):
        model(torch.randn(1, 12, 8), size)
    assert model.up.token_grid.sizes == ()


def test_connecting_again_changes_nothing():
    model = compressed(Stage())
    connect_grids(model)
    assert len(model.large._forward_pre_hooks) == 1
    model(torch.ones(1, 8, 8, 12))
    assert model.large.up.token_grid.sizes == ((8, 12),)


def test_announcements_end_with_the_block():
    model = Stage()
    with announced_grids(model) as grids:
        model(torch.ones(1, 8, 8, 12))
        assert grids[model.small.down].sizes == ((4, 6),)
        assert model.query not in grids
    assert not model.large._forward_pre_hooks and not model.large._forward_pre_hooks_with_kwargs


def test_a_compiled_model_reads_the_maps():
    model = compressed(Stage(), 0.25)
    with_compiler = torch.compile(model, backend='eager')
    for size in ((8, 12), (16, 8)):
        x = torch.randn(2, 8, *size)
        torch.testing.assert_close(with_compiler(x), model(x))


def check_network(network, run, expected, sizes=((64, 96), (96, 70))):
    """Compare a network with itself at keep_ratio 1, and the maps of its layers with others.

    Args:
        network: The network.
        run: Runs it on an image and returns a tensor.
        expected: The maps of some layers for the first size, by name.
        sizes: Sizes of images.
    """
    network.eval()
    model = compressed(network)
    maps = maps_of(model)
    for size in sizes:
        x = torch.randn(2, 3, *size)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings('error', message='.*tokens must lie on maps')
            torch.testing.assert_close(run(model, x), run(network, x), rtol=1e-3, atol=1e-4)
        if size == sizes[0]:
            assert {name: maps[name] for name in expected} == expected
        assert all(maps.values()), 'a layer has no map'


@pytest.fixture
def mmseg():
    return pytest.importorskip('mmseg.models', exc_type=ImportError)


def last(model, x):
    return model(x)[-1]


def test_swin(mmseg):
    swin = mmseg.SwinTransformer(
        embed_dims=8, depths=(2, 2), num_heads=(1, 1), strides=(4, 2), out_indices=(0, 1)
    )
    check_network(
        swin,
        last,
        {
            'stages.0.blocks.1.attn.w_msa.qkv': [(7, 7)],
            'stages.0.blocks.1.ffn.layers.1': [(16, 24)],
            'stages.0.downsample.reduction': [(8, 12)],
            'stages.1.blocks.0.ffn.layers.0.0': [(8, 12)],
        },
    )


def test_gradients_with_checkpointing(mmseg):
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        swin = mmseg.SwinTransformer(
            embed_dims=8,
            depths=(2, 2),
            num_heads=(1, 1),
            strides=(4, 2),
            out_indices=(0, 1),
            drop_path_rate=0.0,
            with_cp=with_cp,
        )
        model = compressed(swin, 0.25)
        model.train()
        last(model, torch.randn(1, 3, 64, 96)).square().sum().backward()
        gradients.append(model.stages[0].blocks[1].ffn.layers[1].weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('with_cls_token', [True, False])
def test_vision_transformer(mmseg, with_cls_token):
    vit = mmseg.VisionTransformer(
        img_size=64,
        patch_size=8,
        embed_dims=16,
        num_layers=1,
        num_heads=2,
        with_cls_token=with_cls_token,
    )
    check_network(vit, last, {'layers.0.ffn.layers.0.0': [(8, 12)]}, sizes=((64, 96), (72, 64)))


def test_beit(mmseg):
    beit = mmseg.BEiT(
        img_size=(64, 96),
        patch_size=8,
        embed_dims=16,
        num_layers=1,
        num_heads=2,
        out_indices=-1,
        qv_bias=True,
    )
    check_network(beit, last, {'layers.0.ffn.layers.1': [(8, 12)]}, sizes=((64, 96),))


def test_twins(mmseg):
    twins = mmseg.SVT(
        embed_dims=[8, 16],
        num_heads=[1, 2],
        mlp_ratios=[2, 2],
        depths=[2, 2],
        strides=(4, 2),
        sr_ratios=[4, 2],
        windiow_sizes=[7, 7],
        out_indices=(0, 1),
    )
    check_network(
        twins,
        last,
        {
            'layers.0.0.attn.qkv': [(7, 7)],
            'layers.0.0.attn.proj': [(16, 24)],
            'layers.1.1.ffn.layers.0.0': [(8, 12)],
        },
    )


def test_several_maps_of_a_deformable_encoder():
    layers = pytest.importorskip('mmdet.models.layers', exc_type=ImportError)
    config_dict = pytest.importorskip('mmengine.config').ConfigDict
    decoder = layers.MSDeformAttnPixelDecoder(
        in_channels=[8, 8, 8],
        strides=[4, 8, 16],
        feat_channels=32,
        out_channels=8,
        num_outs=2,
        encoder=config_dict(
            num_layers=1,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=32, num_heads=2, num_levels=2, num_points=1),
                ffn_cfg=dict(embed_dims=32, feedforward_channels=16),
            ),
        ),
        positional_encoding=dict(num_feats=16),
        norm_cfg=dict(type='GN', num_groups=4),
    )

    def run(model, x):
        x = x.repeat(1, 3, 1, 1)[:, :8]
        return model([nn.functional.avg_pool2d(x, stride) for stride in (4, 8, 16)])[0]

    check_network(
        decoder,
        run,
        {
            'encoder.layers.0.self_attn.value_proj': [(4, 6), (8, 12)],
            'encoder.layers.0.ffn.layers.1': [(4, 6), (8, 12)],
        },
    )
