"""Models that hold several networks: each has a first and a last layer of its own."""

import pytest
from mmengine.model import BaseModel
from torch import nn

from mmwcc.model_tree import dense_names


def layers(count=3):
    return nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(count)))


class Network(BaseModel):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        return x


class MultiBranch(nn.Module):
    """A preprocessor that holds a preprocessor, as that of semi-supervised detectors does."""

    def __init__(self):
        super().__init__()
        self.data_preprocessor = nn.Identity()


def kept(model):
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Conv2d)]
    return dense_names('compress_model', model, ('first', 'last'), names)


def test_a_student_and_a_teacher_keep_the_same_layers():
    pair = Network(student=Network(body=layers()), teacher=Network(body=layers()))
    pair.data_preprocessor = MultiBranch()
    assert kept(pair) == {
        f'{network}.body.{layer}': place
        for network in ('student', 'teacher')
        for layer, place in ((0, 'first'), (2, 'last'))
    }


def test_layers_beside_the_networks_are_neither_first_nor_last():
    pair = Network(before=layers(), one=Network(body=layers(2)), two=Network(body=layers(2)))
    assert set(kept(pair)) == {
        f'{name}.body.{layer}' for name in ('one', 'two') for layer in (0, 1)
    }


@pytest.mark.parametrize(
    'inner', [layers(), Network(body=layers()), Network(inner=Network(a=layers()))]
)
def test_one_network_inside_is_a_part_like_any_other(inner):
    whole = Network(stem=layers(1), inner=inner)
    assert list(kept(whole).values()) == ['first', 'last'] and 'stem.0' in kept(whole)
