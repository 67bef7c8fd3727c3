"""Configs of models that one or two factories build."""

import pytest
from torch import nn

pytest.importorskip('mmengine')
from mmengine.config import Config, ConfigDict  # noqa: E402
from mmengine.registry import MODELS  # noqa: E402

from mmwcc.checkpoint import read_stamp, write_stamp  # noqa: E402
from mmwcc.compressed_config import (  # noqa: E402
    build_within,
    compression_path,
    find_compression,
    is_compressed,
    with_compression,
    without_compression,
)
from mmwcc.models import CompressedModel, WAEModel  # noqa: E402
from mmwcc.utils import dense_config

WAY = dict(keep_dense=[])
PLAIN = dict(type='Seg', head=dict(a=1))
FRONT_END = dict(PLAIN, type='mmwcc.WAEModel', task_type='Seg')
# The same models, compressed, as they may be written: factories by name or object, in either order.
COMPRESSED = [
    (dict(PLAIN, type='mmwcc.CompressedModel', task_type='Seg', compression=WAY), PLAIN),
    (dict(PLAIN, type=CompressedModel, task_type='Seg', compression=WAY), PLAIN),
    (dict(PLAIN, type='mmwcc.models.CompressedModel', task_type='Seg', compression=WAY), PLAIN),
    (dict(PLAIN, type='CompressedModel', task_type=dict(type='Seg'), compression=WAY), PLAIN),
    (
        dict(
            PLAIN,
            type='mmwcc.CompressedModel',
            task_type=['mmwcc.WAEModel', 'Seg'],
            compression=WAY,
        ),
        FRONT_END,
    ),
    (
        dict(
            PLAIN,
            type='mmwcc.WAEModel',
            task_type=['mmwcc.CompressedModel', 'Seg'],
            compression=WAY,
        ),
        FRONT_END,
    ),
    (
        dict(
            PLAIN,
            type='mmwcc.WAEModel',
            task_type=dict(type='mmwcc.CompressedModel', task_type='Seg', compression=WAY),
        ),
        FRONT_END,
    ),
]


@pytest.mark.parametrize(('model', 'dense'), COMPRESSED)
def test_compression_is_found_and_taken_out(model, dense):
    assert is_compressed(model) and find_compression(model) is WAY
    assert without_compression(model) == dense
    assert not is_compressed(dense) and find_compression(dense) is None
    assert without_compression(dense) == dense


@pytest.mark.parametrize('dense', [PLAIN, FRONT_END, dict(PLAIN, type=WAEModel, task_type='Seg')])
def test_compression_is_put_around(dense):
    model = with_compression(dense, WAY)
    assert model['type'] == 'mmwcc.CompressedModel' and find_compression(model) is WAY
    assert without_compression(model) == dense


def test_the_compression_of_a_config_can_be_changed():
    model = ConfigDict(COMPRESSED[-1][0])
    find_compression(model)['integer'] = True
    assert model.task_type.compression.integer is True


@pytest.mark.parametrize(('model', 'dense'), COMPRESSED)
def test_where_the_compression_stands(model, dense):
    config = Config(dict(model=model))
    config.merge_from_dict({f'model.{compression_path(model)}.integer': True})
    assert find_compression(config.model)['integer'] is True


def test_a_model_with_a_task_type_of_its_own_is_no_factory():
    model = dict(type='MultiTask', task_type='mmwcc.CompressedModel')
    assert not is_compressed(model) and without_compression(model) == model
    with pytest.raises(
        ValueError, match='mmwcc.CompressedModel: a model may not have a key task_type of its own'
    ):
        with_compression(model, WAY)


@MODELS.register_module(force=True)
class Widths(nn.Module):
    """Remembers its arguments."""

    def __init__(self, **arguments):
        super().__init__()
        self.arguments = arguments


@pytest.mark.parametrize('task_type', ['Widths', Widths, ['Widths'], dict(type='Widths')])
def test_what_a_factory_builds(task_type):
    assert build_within('WAEModel', task_type, dict(width=3)).arguments == dict(width=3)


def test_types_in_a_list_as_mmengine_notes_them():
    lazy = pytest.importorskip('mmengine.config.lazy')
    layer = build_within(
        'WAEModel', [lazy.LazyObject('torch.nn').Linear], dict(in_features=3, out_features=2)
    )
    assert type(layer) is nn.Linear


@pytest.mark.parametrize(
    ('task_type', 'message'),
    [
        (
            'mmwcc.CompressedModel',
            r'must be the type of a model.*got mmwcc.CompressedModel.*\[_base_.model.type',
        ),
        ('mmwcc.WAEModel', 'must be the type of a model'),
        (['mmwcc.WAEModel', 'Widths'], 'WAEModel: task_type must not name the factory again'),
    ],
)
def test_factories_without_a_model_or_twice_are_refused(task_type, message):
    with pytest.raises(ValueError, match=message):
        build_within('WAEModel', task_type, dict(width=3))


@pytest.mark.parametrize(('model', 'dense'), COMPRESSED[4:])
def test_programs_find_compression_within_another_factory(model, dense):
    config, compression = dense_config(Config(dict(model=model)))
    assert config.model == dense and compression == WAY
    checkpoint = {}
    write_stamp(checkpoint, nn.Sequential(), Config(dict(model=model)))
    assert read_stamp(checkpoint)['compression'] == WAY
