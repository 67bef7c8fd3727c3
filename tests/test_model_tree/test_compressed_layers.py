"""Names of compressed layers, whatever a model is wrapped in."""

import torch
from mmengine.model import BaseModel, BaseTTAModel, ExponentialMovingAverage
from torch import nn

from mmwcc.layers import QuantConv2d
from mmwcc.model_tree import compressed_layers, unwrapped


class Network(BaseModel):
    def __init__(self):
        super().__init__()
        self.conv = QuantConv2d(3, 4, 1)

    def forward(self, inputs, mode='tensor'):
        return self.conv(inputs)


class Augmented(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list[0]


class Distilled(BaseModel):
    """A network that happens to call its only part `module`, beside the data preprocessor."""

    def __init__(self):
        super().__init__()
        self.module = Network()

    def forward(self, inputs, mode='tensor'):
        return self.module(inputs)


def test_layers_have_the_same_names_in_every_wrapper():
    network = Network()
    for wrapped in (
        network,
        nn.DataParallel(network),
        Augmented(network),
        nn.DataParallel(Augmented(network)),
    ):
        assert unwrapped(wrapped) is network
        assert compressed_layers(wrapped) == {'conv': network.conv}
    averaged = ExponentialMovingAverage(network)
    assert unwrapped(averaged) is averaged.module
    assert compressed_layers(averaged) == {'conv': averaged.module.conv}


def test_a_network_with_a_part_called_module_is_no_wrapper():
    model = Distilled()
    assert unwrapped(model) is model
    assert list(compressed_layers(model)) == ['module.conv']
    assert model(torch.zeros(1, 3, 2, 2)).shape == (1, 4, 2, 2)
