"""The programs of tools/benchmarks on tiny shapes: gates that close, the JSON they write, the page
made of it.
"""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mmwcc import kernels
from mmwcc.layers import WaveletCompressedConv2d

FOLDER = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks'
ENVIRONMENT = {
    'device',
    'cpu',
    'capability',
    'threads',
    'dtype',
    'batch',
    'commit',
    'torch',
    'numba',
    'kernels',
    'allocator',
}
TINY = {
    'haar': ['--shapes', '8,4', '16,3'],
    'wcc_layer': ['--shapes', '8,4,6', '--keep', '0.5', '0.25'],
    'layer_map': ['--channels', '2', '5', '--sizes', '8', '16', '--keep', '1', '0.25'],
    'linear_layer': ['--shapes', '4,6,8,8,0', '4,6,14,14,7'],
    'wcc_block': [],
}
NETWORKS = {
    'training_step': ['--size', '64', '--batch', '2', '--scale', '0.25'],
    'end_to_end': ['--size', '64', '64', '--scale', '0.25'],
    'transformers': ['--size', '64', '64', '--networks', 'segformer_mit-b0'],
}


@pytest.fixture
def load(monkeypatch):
    """Import a program by name; its own folder is on the path, as when it is run."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def by_name(name: str):
        if name in NETWORKS:
            pytest.importorskip('mmseg', reason='the benchmark times a network of it')
        return importlib.import_module(name)

    return by_name


@pytest.fixture
def run(load, monkeypatch, tmp_path):
    """Run a program and return the JSON that it wrote."""

    # One turn of each contender, for nobody looks at the times.
    monkeypatch.setattr(load('measuring'), 'UNTIMED', 0)
    monkeypatch.setattr(load('measuring').medians, '__defaults__', (1,))

    def by_name(name: str, *args: str) -> dict:
        program, out = load(name), tmp_path / 'new' / f'{name}_cpu.json'
        monkeypatch.setattr(
            sys,
            'argv',
            [f'{name}.py', '--threads', '1', '--seconds', '0', '--out', str(out), *args],
        )
        program.main()
        return json.loads(out.read_text())

    return by_name


@pytest.fixture
def tiny_table(load, monkeypatch):
    """Put one small block, at two keep ratios, in the place of Table 8; rates do not matter
    then.
    """
    block, table = load('wcc_block'), load('table8')
    monkeypatch.setattr(
        block, 'ROWS', (table.Row(8, 4, 2, 3, 0.5, 1.2), table.Row(8, 4, 2, 3, 0.25, 1e9))
    )
    monkeypatch.setattr(
        load('measuring'), 'machine_rates', lambda: dict(copy=1e10, float32=1e11, int8=1e12)
    )


def check(content: dict, name: str) -> None:
    assert content['benchmark'] == name
    assert set(content['environment']) >= ENVIRONMENT
    assert (content['environment']['threads'], content['environment']['device']) == (1, 'cpu')
    assert content['rows']
    assert all(time > 0 for row in content['rows'] for time in row['milliseconds'].values())


@pytest.mark.parametrize('name', TINY)
def test_program_writes_what_the_numbers_depend_on(run, tiny_table, name):
    check(run(name, *TINY[name]), name)


@pytest.mark.parametrize(
    'name',
    [
        pytest.param('training_step', marks=pytest.mark.slow),
        'end_to_end',
        pytest.param('transformers', marks=pytest.mark.slow),
    ],
)
def test_program_of_a_network_writes_what_the_numbers_depend_on(run, name):
    content = run(name, *NETWORKS[name])
    check(content, name)
    assert content['rows'][0]['name'] == ('segformer_mit-b0' if name == 'transformers' else 'dense')
    if name == 'training_step':
        assert [row['saved_ratio'] for row in content['rows']][0] == 1.0
        assert all(row['saved_bytes'] > 0 for row in content['rows'])


# What the figures mean


def test_layer_is_compared_with_the_faster_dense_format(run):
    row = run('wcc_layer', *TINY['wcc_layer'])['rows'][0]
    best = {
        name: min(
            row['milliseconds'][f'{name} {format}'] for format in ('contiguous', 'channels_last')
        )
        for name in ('dense', 'k0.25', 'int8 k0.25', 'int8 dense')
    }
    for name in ('k0.25', 'int8 k0.25', 'int8 dense'):
        assert row['speedup'][name] == pytest.approx(best['dense'] / best[name], rel=1e-3)


def test_medians_take_turns(load):
    order = []
    calls = {name: lambda name=name: order.append(name) for name in 'ab'}
    assert set(load('measuring').medians(calls, 0, least=3)) == {'a', 'b'}
    turn = ''.join(name * (load('measuring').UNTIMED + 1) for name in 'ab')
    assert order == list(
        'ab' + 3 * turn
    )  # a turn to warm up, then each timed call after untimed ones


def test_the_environment_names_the_forks_where_they_are(load, monkeypatch):
    measuring, installed = load('measuring'), {'onedl-mmcv': '2.3.6', 'torch': '2.13.0'}
    monkeypatch.setattr(measuring, 'version', installed.get)
    found = measuring.environment()
    assert (found['onedl-mmcv'], found['mmcv'], found['torch']) == ('2.3.6', None, '2.13.0')
    assert 'onedl-mmsegmentation' not in found


def test_fastest_tells_names_from_longer_names(load):
    times = {
        'k0.25 contiguous': 3.0,
        'k0.25 channels_last': 2.0,
        'k0.2 contiguous': 0.1,
        'int8 k0.25 contiguous': 1.0,
    }
    assert load('measuring').fastest(times, 'k0.25') == 2.0


def test_floor_of_a_block_by_hand(load):
    """10 bytes/s and 2 FLOP/s: each product is bound by computation, all else by memory."""
    block, row = load('wcc_block'), load('table8').Row(1, 2, 2, 1, 0.5, 1.2)
    dense = (
        8 + 4 * 8 / 10 + 8
    )  # 2x4 multiplications, a depthwise layer that reads and writes 4 values
    compressed = (
        4 * (2 * 2) / 10 + 4 + 4 * (0.5 * 4 + 4) / 10 + 4 * 8 / 10 + 4 + 4 * (0.5 * 2 + 2 * 2) / 10
    )
    floor = block.floor_ratio(row, dict(copy=10, float32=2))
    assert floor == pytest.approx(dense / compressed)
    assert block.required_ratio(row, floor) == pytest.approx(min(1.2, 0.75 * floor))
    assert block.required_ratio(row, 1.2) == pytest.approx(0.9)


def test_floor_of_a_layer_by_hand(load):
    """10 bytes/s and 2 FLOP/s: products are bound by computation, all else by memory."""
    floor = load('wcc_layer').floor_times(2, 3, 5, 0.25, dict(copy=10, float32=2))
    product = 1 * 3 * 5
    pack, unpack = 4 * (4 + 1) * 3 / 10, 4 * (4 + 1) * 5 / 10
    assert floor['forward'] == pytest.approx(1e3 * (4 * 4 * 3 / 10 + pack + product + unpack))
    assert floor['training step'] == pytest.approx(
        floor['forward'] + 1e3 * (2 * product + pack + unpack)
    )


def test_row_passes_only_if_it_reaches_what_is_required(run, tiny_table):
    rows = run('wcc_block')['rows']
    assert all(
        row['passed'] == (row['speedup'][f'k{row["keep_ratio"]:g}'] >= row['required'])
        for row in rows
    )


def test_saved_bytes_count_each_storage_once_and_no_parameters(load):
    saved_bytes = load('training_step').saved_bytes

    class Toy(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(10))

        def forward(self, x, truth, mode):
            y = x * self.weight  # saves x and the weight
            return dict(loss=(y * y[:]).sum(), acc=x.sum())  # saves y, twice

    assert saved_bytes(Toy(), torch.ones(10), []) == 2 * 40


def test_table_8_has_24_rows(load):
    rows = load('table8').ROWS
    assert len(rows) == 24
    assert min(row.paper for row in rows) == 1.12 and max(row.paper for row in rows) == 2.13


# Gates


def test_gate_closes_on_nan_and_on_large_errors(load):
    gate = load('measuring').gate
    gate('equal', 1e-6, 1e-5)
    for error in (1e-5, float('nan'), float('inf')):
        with pytest.raises(
            SystemExit, match='equal, but the relative error is .* so nothing was timed'
        ):
            gate('equal', error, 1e-5)


def wrong_scale(op):
    return lambda *args, **keywords: op(*args, **keywords) * 1.001


@pytest.mark.parametrize(
    ('name', 'op'),
    [
        ('haar', 'haar_pack'),
        ('haar', 'haar_norms'),
        ('haar', 'haar_unpack'),
        ('wcc_block', 'gather_rows'),
    ],
)
def test_wrong_kernel_is_not_timed(run, tiny_table, monkeypatch, name, op):
    monkeypatch.setattr(kernels, op, wrong_scale(getattr(kernels, op)))
    with pytest.raises(SystemExit, match='so nothing was timed'):
        run(name, *TINY[name])


@pytest.mark.parametrize('name', ['wcc_layer', 'layer_map'])
def test_wrong_layer_is_not_timed(run, monkeypatch, name):
    monkeypatch.setattr(
        WaveletCompressedConv2d, '_conv_forward', wrong_scale(WaveletCompressedConv2d._conv_forward)
    )
    with pytest.raises(SystemExit, match='so nothing was timed'):
        run(name, *TINY[name])


def test_wrong_positions_are_not_timed(load, monkeypatch):
    layer = load('wcc_layer')

    def keep_smallest(x, k, levels):
        norms = kernels.haar_norms(x, levels)
        slot = kernels.select(norms.max() - norms, k)
        return kernels.haar_pack(x, slot, k, levels), slot

    monkeypatch.setattr(kernels, 'haar_shrink', keep_smallest)
    with pytest.raises(SystemExit, match='the kept positions must be the largest'):
        layer.gate_layer(nn.Conv2d(4, 4, 1), torch.randn(1, 4, 16, 16), 0.5)


def test_wrong_integer_layer_is_not_timed(load, monkeypatch):
    layer = load('wcc_layer')
    monkeypatch.setattr(layer, 'to_integer', lambda model, verbose: model[0].weight.data.mul_(1.1))
    with pytest.raises(SystemExit, match='the int8 WaveletCompressedConv2d must equal'):
        layer.integer(
            WaveletCompressedConv2d, nn.Conv2d(4, 4, 1), torch.randn(1, 4, 8, 8), keep_ratio=0.5
        )


def test_authors_need_their_folder(load, tmp_path):
    with pytest.raises(
        SystemExit, match=r'--authors must be a folder that holds WCC/WCC.py, got .*Clone https'
    ):
        load('wcc_layer').authors_layers(
            tmp_path, nn.Conv2d(4, 4, 1, bias=False), torch.randn(1, 4, 16, 16), 0.25
        )


def test_authors_layer_is_loaded_and_compared(run, tiny_table, tmp_path, monkeypatch):
    """A stand-in with the interface of theirs, whose quantizers do nothing."""
    code = """
from torch import nn
from mmwcc.functional import wavelet_compressed_conv2d

class WCC(nn.Module):
    scale = 1.0
    def __init__(self, in_channels, out_channels, levels, compress_rate):
        super().__init__()
        self.levels, self.rate = levels, compress_rate
    def forward(self, x):
        weight = self.weight.unsqueeze(-1)
        return self.scale * wavelet_compressed_conv2d(x, weight, keep_ratio=self.rate)
"""
    (tmp_path / 'WCC').mkdir()
    (tmp_path / 'WCC' / 'WCC.py').write_text(code)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    content = run('wcc_layer', '--shapes', '16,4,4', '--keep', '0.25', '--authors', str(tmp_path))
    forward, step = (row['over_authors'] for row in content['rows'])
    assert set(forward) == {'k0.25', 'w8a8 k0.25', 'int8 k0.25', 'floor'}
    assert set(step) == {'k0.25', 'w8a8 k0.25', 'floor'}
    times, name = content['rows'][0]['milliseconds'], 'k0.25'
    theirs, ours = (
        min(times[f'{who}{name} {format}'] for format in ('contiguous', 'channels_last'))
        for who in ('authors ', '')
    )
    assert forward[name] == pytest.approx(theirs / ours, rel=2e-3)
    content = run('wcc_layer', '--shapes', '16,4,4', '--keep', '0.5', '--authors', str(tmp_path))
    assert [set(row['over_authors']) for row in content['rows']] == 2 * [{'w8a8 k0.25', 'floor'}]
    try:
        monkeypatch.setattr(sys.modules['WCC.WCC'].WCC, 'scale', 1.01)
        with pytest.raises(SystemExit, match="ours must equal the authors' layer"):
            run('wcc_layer', '--shapes', '16,4,4', '--keep', '0.25', '--authors', str(tmp_path))
    finally:
        sys.modules.pop('WCC.WCC'), sys.modules.pop('WCC')


# The page


def test_page_and_plots_are_made_from_the_files(run, load, tiny_table, tmp_path, monkeypatch):
    pytest.importorskip('matplotlib')
    plot = load('plot')
    for name in ('haar', 'wcc_layer', 'wcc_block'):
        run(name, *TINY[name])
    folder = tmp_path / 'new'
    run('layer_map', *TINY['layer_map'])
    monkeypatch.setattr(plot, 'SPEED_TABLE', folder / 'layer_map_cpu.json')
    page = folder / 'README.md'
    names = ['haar', 'wcc_layer', 'wcc_block', 'layer_map', 'end_to_end']
    page.write_text(
        ''.join(f'{name}:\n<!-- table: {name} -->\nold\n<!-- end -->\n' for name in names)
    )
    monkeypatch.setattr(sys, 'argv', ['plot.py', '--folder', str(folder), '--check'])
    with pytest.raises(SystemExit, match='must show what the JSON files beside it say'):
        plot.main()
    monkeypatch.setattr(sys, 'argv', ['plot.py', '--folder', str(folder)])
    plot.main()
    text = page.read_text()
    assert 'old' not in text and '| 8x8 | 4 → 6 |' in text and text.count('Not measured yet.') == 1
    assert '| 8x8 | 4 | 2 | 25 % |' in text and '| 2 → 5 |' in text
    drawn = {path.name for path in folder.glob('*.png')}
    assert drawn == {f'{name}_cpu.png' for name in ('wcc_layer', 'wcc_block', 'layer_map')}
    monkeypatch.setattr(sys, 'argv', ['plot.py', '--folder', str(folder), '--check'])
    plot.main()


@pytest.mark.skipif(
    not (FOLDER.parents[1] / 'docs').is_dir(), reason='the sources come without documentation'
)
def test_page_of_the_documentation_shows_its_files(load, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['plot.py', '--check'])
    load('plot').main()


def test_unknown_marker_is_refused(load, tmp_path):
    with pytest.raises(SystemExit, match="a marker must name one of .* got 'wcc_leyer'"):
        load('plot').filled('<!-- table: wcc_leyer -->\n<!-- end -->', tmp_path)
