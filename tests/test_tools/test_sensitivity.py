"""tools/analysis_tools/sensitivity.py on a toy segmentor."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmengine')
import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_engine'))
from toy_training import COMPRESSION, ToySegmentor, toy_config  # noqa: E402

from mmwcc.cost import count_cost
from mmwcc.model_tree.compressed import compressed_layers
from mmwcc.post_training import compressed_cost
from mmwcc.presets import quantizer_paramwise
from mmwcc.utils import build_model, load_config  # noqa: E402

ROOT = Path(__file__).parents[2]
FEW = ['--weight-bits', '8', '4', '--act-bits', '8', '4', '--keep-ratios', '0.5', '0.25']


@pytest.fixture(scope='module')
def tool():
    path = ROOT / 'tools' / 'analysis_tools' / 'sensitivity.py'
    spec = importlib.util.spec_from_file_location('sensitivity', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ImagesOnly(ToySegmentor):
    """A segmentor that can be counted, for which a model must run on images alone."""

    def forward(self, inputs, labels=None, mode='tensor'):
        return super().forward(inputs, labels, mode)


@pytest.fixture
def toy(tmp_path):
    from mmengine.registry import MODELS

    MODELS.register_module(module=ImagesOnly, force=True)

    def write(compression=COMPRESSION):
        model = (
            dict(type='ImagesOnly')
            if compression is None
            else dict(type='mmwcc.CompressedModel', task_type='ImagesOnly', compression=compression)
        )
        config = toy_config(
            tmp_path / 'work',
            compression=compression,
            model=model,
            hooks=dict(compression_schedule=None),
        )
        path = tmp_path / ('dense.py' if compression is None else 'compressed.py')
        path.write_text(config.pretty_text)
        torch.save(dict(state_dict=ImagesOnly().state_dict()), tmp_path / 'dense.pth')
        return str(path), str(tmp_path / 'dense.pth'), '--out-dir', str(tmp_path / 'out'), *FEW

    return write


def dense_bops():
    return count_cost(ImagesOnly(), (8, 10)).total.total_bops


def test_configs_cost_what_the_budget_says(tool, toy, tmp_path, capsys):
    tool.main([*toy(), '--budget', '30%', '0.29', '20500000'])
    captured = capsys.readouterr()
    assert 'layers without a choice: ' in captured.out
    for line in ('reading images: 4 images', 'counting: 6 layers', 'sensitivity: 2 layers'):
        assert f'{line}\n' in captured.err
    names = ['allocated_30', 'allocated_0_29', 'allocated_20500000']
    costs = []
    for name in names:
        assert (tmp_path / 'out' / f'{name}.png').read_bytes().startswith(b'\x89PNG')
        inherited = tmp_path / f'{name}_model.py'
        inherited.write_text(
            f"_base_ = './out/{name}.yml'\nmodel = dict(type='mmwcc.CompressedModel', "
            "task_type='ImagesOnly', compression=_base_.compression)\n"
        )
        model = build_model(load_config(str(inherited)))
        costs.append(count_cost(model, (8, 10)).total.total_bops)
        rules = load_config(str(inherited)).compression.rules
        assert {rule.pattern for rule in rules} == {'point', 'spatial'}
    assert (
        costs[0] <= 0.3 * dense_bops() and costs[1] <= 0.29 * dense_bops() and costs[2] <= 20500000
    )
    assert costs[0] > costs[2]


def test_a_preset_as_budget_and_as_compression(tool, toy, tmp_path, capsys):
    tool.main([*toy(compression=None), '--compression', 'wcc_w8a8_k50', '--budget', 'wcc_w8a8_k50'])
    text = (tmp_path / 'out' / 'allocated_wcc_w8a8_k50.yml').read_text()
    assert '_base_' not in text, 'stock programs cannot read bases of mmwcc'
    config = load_config(str(tmp_path / 'out' / 'allocated_wcc_w8a8_k50.yml'))
    assert config.quantizer_paramwise == quantizer_paramwise()
    assert config.compression.pointwise.levels == 3
    cost = compressed_cost(
        ImagesOnly(), tool.preset('wcc_w8a8_k50'), lambda model: count_cost(model, (8, 10))
    )
    allocated = compressed_cost(
        ImagesOnly(), config.compression.to_dict(), lambda model: count_cost(model, (8, 10))
    )
    assert allocated.total.total_bops <= cost.total.total_bops


def test_what_was_measured_is_used_again(tool, toy, tmp_path, capsys):
    arguments = [*toy(), '--budget', '0.3']
    tool.main(arguments)
    path = tmp_path / 'out' / 'sensitivity.json'
    content = json.loads(path.read_text())
    point, spatial = content['layers']
    path.write_text(json.dumps(dict(content, layers=[point])))
    capsys.readouterr()
    tool.main(arguments)
    assert 'sensitivity: 1 layers\n' in capsys.readouterr().err
    assert json.loads(path.read_text())['layers'][0] == point
    with pytest.raises(SystemExit, match='was measured with images 4, not 2'):
        tool.main([*arguments, '--images', '2'])


def test_pointwise_only(tool, toy, tmp_path, capsys):
    tool.main(
        [
            *toy(
                compression={
                    **COMPRESSION,
                    'weight_quant': {**COMPRESSION['weight_quant'], 'bits': 8},
                }
            ),
            '--budget',
            '0.3',
            '--pointwise-only',
        ]
    )
    (spatial,) = (
        rule
        for rule in load_config(str(tmp_path / 'out' / 'allocated_0_3.yml')).compression.rules
        if rule.pattern == 'spatial'
    )
    assert (spatial.weight_quant.bits, spatial.act_quant.bits) == (8, 4)  # as COMPRESSION has it


def test_the_dense_model_is_what_is_measured(tool, toy, tmp_path, capsys):
    config, checkpoint, *options = toy()
    tool.main([config, checkpoint, *options, '--budget', '0.3'])
    assert not compressed_layers(ImagesOnly())
    layers = json.loads((tmp_path / 'out' / 'sensitivity.json').read_text())['layers']
    assert layers[0]['keep_ratio']['0.5'] < layers[0]['keep_ratio']['0.25']
    assert (
        layers[1]['weight_bits']['8'] < layers[1]['weight_bits']['4']
        and layers[1]['keep_ratio'] == {}
    )


@pytest.mark.parametrize(
    'options, message',
    [
        (
            ['--budget', '100'],
            'budget must be at least what the network costs with the cheapest candidates of 2',
        ),
        (['--budget', '0.3', '--compression', 'wcc_w8a8_k50'], 'compressed already'),
    ],
)
def test_errors(tool, toy, options, message):
    with pytest.raises(SystemExit, match=message):
        tool.main([*toy(), *options])


@pytest.mark.parametrize(
    'options, message',
    [
        (
            ['--budget', 'wcc_w8a8_k26'],
            '--budget must be the name of a preset or a positive number, got wcc_w8a8_k26',
        ),
        (['--budget', '0'], 'positive number, got 0'),
        (['--budget', '1', '--images', '0'], '--images must be at least 1'),
    ],
)
def test_bad_options(tool, capsys, options, message):
    with pytest.raises(SystemExit):
        tool.main(['config.py', 'dense.pth', *options])
    assert message in capsys.readouterr().err
