"""Small networks, compressed and with learned clips."""

import torch
import torch.nn.functional as F
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.maps import add_map_scales
from mmwcc.post_training import calibrate


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


def block(cin, cout, kernel=1, act=nn.ReLU, **geometry):
    parts = [nn.Conv2d(cin, cout, kernel, bias=False, **geometry), nn.BatchNorm2d(cout)]
    return nn.Sequential(*parts, *([act()] if act else []))


class Segmentor(nn.Module):
    """A small DeepLabV3+ on three inverted residual blocks, as MobileNetV2 has them."""

    def __init__(self):
        super().__init__()
        self.stem = block(3, 8, 3, nn.ReLU6, stride=2, padding=1)
        self.first, self.second, self.third = (
            nn.Sequential(
                block(8, 16, act=nn.ReLU6),
                block(16, 16, 3, nn.ReLU6, stride=stride, padding=1, groups=16),
                block(16, 8, act=None),
            )
            for stride in (1, 1, 2)
        )
        self.pooled, self.small = block(8, 8), block(8, 8)
        self.wide = block(8, 8, 3, padding=2, dilation=2)
        self.mix, self.low, self.fine = block(24, 16), block(8, 4), block(20, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = self.first(self.stem(x))
        x = x + self.second(x)
        deep = self.third(x)
        pooled = self.pooled(F.adaptive_avg_pool2d(deep, 1))
        pooled = F.interpolate(pooled, deep.shape[2:], mode='bilinear')
        deep = self.mix(torch.cat([self.small(deep), self.wide(deep), pooled], 1))
        deep = F.interpolate(deep, x.shape[2:], mode='bilinear', align_corners=False)
        return self.last(self.fine(torch.cat([deep, self.low(x)], 1)))


def segmentor(images, act_quant=None, **maps):
    """Return the small DeepLabV3+ with weights, clips and scales of maps that fit the images."""
    model = Segmentor()
    model(torch.cat(images))  # statistics for BatchNorm
    layer = dict(type='mmwcc.QuantConv2d')
    settings = quantizers(8, per_channel=True)
    settings['act_quant'] |= dict(symmetric=False) if act_quant is None else act_quant
    compress_model(model, dict(pointwise=layer, other=layer, **settings), verbose=False)
    calibrate(model.eval(), images)
    add_map_scales(model, (64, 96), **maps)
    calibrate(model, images, again=False)
    return model
