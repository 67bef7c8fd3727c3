"""A small network with every kind of convolution, compressed and with learned clips."""

import torch
from torch import nn

from mmwcc.compression import compress_model


class Net(nn.Module):
    """A stem, an inverted residual block with BatchNorm, a strided and a last 1x1 convolution."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = (
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
        )
        self.expand, self.norm1 = nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.depthwise, self.norm2 = nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.BatchNorm2d(24)
        self.project, self.norm3 = nn.Conv2d(24, 8, 1), nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 8, 1, stride=2)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        y = self.norm1(self.expand(x)).relu()
        y = self.norm2(self.depthwise(y)).relu()
        return self.last(self.down(x + self.norm3(self.project(y))))


def quantizers(bits, kind='LearnedClip', per_channel=False):
    return dict(
        weight_quant=dict(type=f'mmwcc.{kind}WeightQuantizer', bits=bits, per_channel=per_channel),
        act_quant=dict(type=f'mmwcc.{kind}ActQuantizer', bits=bits),
    )


def build(bits=32, kind='LearnedClip', per_channel=False, **pointwise):
    """Return the network compressed, with clips from one batch and BatchNorm of both signs."""
    model = Net()
    settings = dict(type='mmwcc.WaveletCompressedConv2d', **(dict(keep_ratio=0.3) | pointwise))
    quantized = (
        {}
        if bits == 32
        else dict(quantizers(bits, kind, per_channel), other=dict(type='mmwcc.QuantConv2d'))
    )
    compress_model(model, dict(pointwise=settings, **quantized), verbose=False)
    model(torch.randn(2, 3, 64, 96))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()
