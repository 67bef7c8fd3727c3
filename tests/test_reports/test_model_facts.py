"""mmwcc/reports/model_facts.py."""

import pytest

pytest.importorskip('mmengine', reason='models are built with mmengine', exc_type=ImportError)

import toy_work_dirs as toy  # noqa: E402
from torch import nn  # noqa: E402

from mmwcc.reports.model_facts import (  # noqa: E402
    Basis,
    build_with_report,
    examine,
    examine_all,
)
from mmwcc.reports.work_dirs import read_work_dir  # noqa: E402

DENSE_MACS = 8 * 16 * (9 * 3 * 8 + 9 * 8 * 8 + 8 * 8)


def test_dense_model(tmp_path):
    facts = examine(read_work_dir(toy.make_work_dir(tmp_path)))
    assert [layer.after for layer in facts.layers] == ['dense'] * 3
    assert facts.total['macs'] == DENSE_MACS and facts.total['total_bops'] == 32 * 32 * DENSE_MACS
    assert facts.basis == Basis('exact', (8, 16)) and facts.notes == []
    assert facts.layer_costs['point'].macs == 8 * 16 * 8 * 8


def test_compressed_model_as_built(tmp_path):
    facts = examine(read_work_dir(toy.make_work_dir(tmp_path, toy.COMPRESSION)))
    stem, spatial, point = facts.layers
    assert (stem.after, stem.reason) == ('dense', "keep_dense 'first'")
    assert (spatial.after, spatial.weight_bits, spatial.act_bits) == ('QuantConv2d', 8, 4)
    assert (point.after, point.keep_ratio) == ('WaveletCompressedConv2d', 0.25)
    assert facts.layer_costs['point'].macs == 8 * 16 * 8 * 8 / 4
    assert facts.layer_costs['spatial'].bops == 8 * 16 * 9 * 8 * 8 * 8 * 4


def test_the_state_of_the_checkpoint_counts(tmp_path):
    folder = toy.make_work_dir(tmp_path, toy.COMPRESSION)
    toy.write_checkpoint(
        folder,
        dict(
            layers=dict(
                point=dict(
                    type='WaveletCompressedConv2d',
                    keep_ratio=0.5,
                    weight_bits=4,
                    act_bits=6,
                    levels=1,
                ),
                gone=dict(type='QuantConv2d', weight_bits=4),
            )
        ),
    )
    facts = examine(read_work_dir(folder))
    point = facts.layers[2]
    assert (point.keep_ratio, point.weight_bits, point.act_bits) == (0.5, 4, 6)
    assert facts.layer_costs['point'].bops == 8 * 16 * 8 * 8 / 2 * 4 * 6


def test_recorded_cost_says_for_which_input(tmp_path):
    folder = toy.make_work_dir(tmp_path)
    recorded = dict(
        convention='paper',
        input_shape=[1, 3, 4, 4],
        total=dict(total_bops=7, macs=5, weight_bytes=3),
    )
    toy.write_checkpoint(folder, dict(cost=recorded))
    work_dir = read_work_dir(folder)
    facts = examine(work_dir)
    assert facts.basis == Basis('paper', (4, 4)) and facts.total['macs'] == DENSE_MACS / 8
    assert examine(work_dir, (8, 16)).basis == Basis('exact', (8, 16))
    work_dir.config.model.type = 'NobodyHasThis'
    facts = examine(work_dir)
    assert (
        facts.total == recorded['total']
        and facts.basis == Basis('paper', (4, 4))
        and facts.layer_costs == {}
    )
    assert 'could not be built' in facts.notes[0] and 'its layers are not known' in facts.notes[0]


def test_costs_of_several_models_are_for_one_size(tmp_path):
    """That of the first model, whatever the others record or test with."""
    folders = [
        toy.make_work_dir(tmp_path / name) for name in ('first', 'small', 'recorded', 'none')
    ]
    work_dirs = [read_work_dir(folder) for folder in folders]
    work_dirs[1].config.test_dataloader.dataset.img_scale = (4, 4)
    recorded = dict(convention='paper', input_shape=[1, 3, 2, 2], total=dict(total_bops=1, macs=1))
    toy.write_checkpoint(folders[2], dict(cost=recorded))
    work_dirs[3].config.test_dataloader = None
    facts = examine_all(work_dirs)
    assert {fact.basis for fact in facts} == {Basis('exact', (8, 16))}
    assert [fact.total['macs'] for fact in facts] == [DENSE_MACS] * 4
    assert [len(fact.notes) for fact in facts] == [0, 1, 1, 0]
    assert 'tested, for images of 4x4. It is counted for images of 8x16' in facts[1].notes[0]
    assert "images of 2x2 by the paper's convention. It is counted" in facts[2].notes[0]
    asked = examine_all(work_dirs, (4, 4))
    assert {fact.basis for fact in asked} == {Basis('exact', (4, 4))}
    assert all(fact.notes == [] for fact in asked)


def test_what_was_recorded_for_another_size_is_not_compared(tmp_path):
    folders = [toy.make_work_dir(tmp_path / name) for name in ('first', 'other')]
    recorded = dict(convention='exact', input_shape=[1, 3, 2, 2], total=dict(total_bops=1, macs=1))
    toy.write_checkpoint(folders[1], dict(cost=recorded))
    work_dirs = [read_work_dir(folder) for folder in folders]
    work_dirs[1].config.model.type = 'NobodyHasThis'
    facts = examine_all(work_dirs)[1]
    assert facts.total == {} and facts.basis is None
    assert 'its layers and its cost are not known' in facts.notes[0]


def test_a_model_that_takes_one_size_only(tmp_path):
    work_dirs = [read_work_dir(toy.make_work_dir(tmp_path / name)) for name in ('first', 'fixed')]
    work_dirs[1].config.model.type = 'FixedSizeNetwork'
    work_dirs[1].config.test_dataloader.dataset.img_scale = (4, 4)
    facts = examine_all(work_dirs)[1]
    assert facts.total == {}
    notes = ' '.join(facts.notes)
    assert 'could not be counted for images of 8x16' in notes and 'images of 4x4' in notes
    assert examine(work_dirs[1]).total['macs'] > 0


@toy.MODELS.register_module(force=True)
class FixedSizeNetwork(toy.ToyReportNetwork):
    """Takes images of 4x4 pixels."""

    def __init__(self):
        super().__init__()
        self.classify = nn.Linear(8 * 4 * 4, 2)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.classify(super().forward(inputs).flatten(1))


def test_what_is_not_known_is_noted(tmp_path):
    work_dir = read_work_dir(toy.make_work_dir(tmp_path))
    work_dir.config.test_dataloader = None
    facts = examine(work_dir)
    assert len(facts.layers) == 3 and facts.total == {} and facts.basis is None
    assert 'names no size of input images' in facts.notes[0]
    assert (
        'could not be counted for images of 8x0: count_cost:' in examine(work_dir, (8, 0)).notes[0]
    )
    work_dir.config.pop('model')
    facts = examine(work_dir)
    assert facts.layers == [] and 'layers and its cost are not known' in facts.notes[0]


def test_the_default_scope_is_put_back():
    from mmengine.registry import DefaultScope

    config = toy.make_config()
    config.default_scope = 'mmwcc'
    build_with_report(config)
    assert DefaultScope.get_current_instance() is None


def test_an_integer_model_has_the_cost_of_the_one_it_was_made_from(tmp_path):
    integer = {**toy.COMPRESSION, 'integer': True}
    folders = [
        toy.make_work_dir(tmp_path / 'trained', toy.COMPRESSION),
        toy.make_work_dir(tmp_path / 'integer', integer),
        toy.make_work_dir(tmp_path / 'maps', {**integer, 'maps': dict(input_shape=(16, 16))}),
    ]
    trained, *others = examine_all([read_work_dir(folder) for folder in folders])
    assert [facts.notes for facts in others] == [[], []]
    assert {facts.total['macs'] for facts in others} == {trained.total['macs']}
    assert {facts.total['bops'] for facts in others} == {trained.total['bops']}
    assert [facts.layers[2].after for facts in others] == ['IntegerWaveletCompressedConv2d'] * 2
    assert others[1].layers[1].after == 'IntegerMapConv2d'


@toy.MODELS.register_module(force=True)
class HalvingNetwork(toy.ToyReportNetwork):
    """Takes images whose sides are even."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return inputs[..., ::2, :] + inputs[..., 1::2, :]


def test_a_size_that_does_not_fit_is_explained_with_the_remedy(tmp_path):
    work_dir = read_work_dir(toy.make_work_dir(tmp_path))
    work_dir.config.model.type = 'HalvingNetwork'
    (note,) = examine(work_dir, (7, 8)).notes
    assert '--shape HEIGHT WIDTH' in note and '..' not in note
