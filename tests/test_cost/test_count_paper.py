"""Published cost figures, from network definitions and from closed-form lists of layers."""

import json
from pathlib import Path

import pytest
import torch.nn.functional as F
from torch import nn

from mmwcc.cost.formulas import conv_macs, transform_bops

TABLES = json.loads(Path(__file__).with_name('paper_tables.json').read_text())
GIGA = 1e9


def figure(name):
    """Return a published figure in operations: as printed, and with all digits."""
    entry = TABLES['figures'][name]
    unit = GIGA if entry['unit'].startswith('G') else 1e6
    return entry['published'] * unit, entry['computed'] * unit


def check(name, bops, digits):
    """Compare with the figure at full length, and with what was printed of it."""
    published, computed = figure(name)
    assert bops == pytest.approx(computed, rel=1e-14)
    unit = GIGA if TABLES['figures'][name]['unit'].startswith('G') else 1e6
    assert round(bops / unit, digits) == published / unit


class InvertedResidual(nn.Module):
    """The block of Table 5: the map is padded before the expansion, and the depthwise convolution
    does not pad.
    """

    def __init__(self, in_channels, out_channels, stride, dilation, expand_ratio):
        super().__init__()
        self.pad, self.residual = [dilation] * 4, stride == 1 and in_channels == out_channels
        hidden = in_channels * expand_ratio
        convolutions = [nn.Conv2d(in_channels, hidden, 1, bias=False)] if expand_ratio != 1 else []
        convolutions += [
            nn.Conv2d(hidden, hidden, 3, stride, 0, dilation, hidden, bias=False),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
        ]
        for number, conv in enumerate(convolutions, 1):
            self.add_module(f'conv{number}', conv)

    def forward(self, x):
        y = F.pad(x, self.pad)
        for conv in self.children():
            y = conv(y)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """MobileNetV2 at output stride 16 as in the authors' DeepLabV3+, up to its last block."""

    STAGES = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        channels, output_stride, dilation, block = 32, 2, 1, 1
        for expand_ratio, out_channels, repeats, stage_stride in self.STAGES:
            before = dilation
            if output_stride == 16:
                stride, dilation = 1, dilation * stage_stride
            else:
                stride, output_stride = stage_stride, output_stride * stage_stride
            for i in range(repeats):
                self.add_module(
                    f'InvRes{block}',
                    InvertedResidual(
                        channels,
                        out_channels,
                        stride if i == 0 else 1,
                        before if i == 0 else dilation,
                        expand_ratio,
                    ),
                )
                channels, block = out_channels, block + 1

    def forward(self, x):
        for module in self.children():
            x = module(x)
        return x


def test_table_5():
    pytest.importorskip('mmengine')
    from mmwcc.cost import count_cost

    network = MobileNetV2()
    layers = {
        layer.name.replace('.', ' '): layer
        for layer in count_cost(network, (1024, 2048), convention='paper').layers
        if layer.name != 'stem'
    }
    modules = {name.replace('.', ' '): module for name, module in network.named_modules()}
    rows = [dict(zip(TABLES['table5_columns'], row, strict=True)) for row in TABLES['table5']]
    assert len(rows) == 50 and list(layers) == [row['id'] for row in rows]
    for row in rows:
        conv = modules[row['id']]
        assert [row[key] for key in ('Cin', 'Cout', 'K', 'groups', 'S', 'dilation')] == [
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size[0],
            conv.groups,
            conv.stride[0],
            conv.dilation[0],
        ]
        assert layers[row['id']].macs == row['MAC'], row['id']
        assert layers[row['id']].geometry.maps[0].inputs == row['Cin'] * row['H'] * row['W'], row[
            'id'
        ]
    for kernel in (1, 3):
        total = sum(
            layer.macs for name, layer in layers.items() if modules[name].kernel_size[0] == kernel
        )
        assert total == TABLES[f'table5_total_{kernel}x{kernel}']


def test_appendix_d():
    check('AppD.conv', conv_macs(160, 960, 1, (34, 34), convention='paper') * 8 * 8, 0)
    check('AppD.haar', transform_bops(160, (34, 34), 8) + transform_bops(960, (34, 34), 8), 0)


def separable(channels, out_channels, size):
    """Return the MACs of a 3x3 convolution split into a depthwise and a point-wise one."""
    return (
        conv_macs(channels, channels, 3, size, groups=channels),
        conv_macs(channels, out_channels, 1, size),
    )


@pytest.mark.parametrize(
    ('name', 'bits', 'keep_ratio'),
    [
        ('T4.FP32.sep', 32, None),
        ('T4.FP32.50', 32, 0.5),
        ('T4.8/8', 8, None),
        ('T4.8/8.50', 8, 0.5),
    ],
)
def test_separable_edsr(name, bits, keep_ratio):
    """33 layers of 64 channels at the size of the small image, 1020x768."""
    size = (768, 1020)
    depthwise, pointwise = separable(64, 64, size)
    wavelets = 0 if keep_ratio is None else 2 * transform_bops(64, size, bits)
    check(name, 33 * (bits * bits * (depthwise + (keep_ratio or 1) * pointwise) + wavelets), 0)


def test_edsr_of_full_convolutions():
    check('T4.FP32.full3x3', 33 * 32 * 32 * conv_macs(64, 64, 3, (768, 1020)), 0)


def mobilenet_v2(stages, channels, size, kernel=3):
    """Return the MACs of the inverted residuals of a MobileNetV2 or an EfficientNet without squeeze
    and excitation.
    """
    macs = 0
    for expand_ratio, out_channels, repeats, stride, *own_kernel in stages:
        for i in range(repeats):
            hidden = channels * expand_ratio
            if expand_ratio != 1:
                macs += conv_macs(channels, hidden, 1, size)
            if i == 0:
                size = tuple(-(-side // stride) for side in size)
            macs += conv_macs(
                hidden, hidden, own_kernel[0] if own_kernel else kernel, size, groups=hidden
            )
            macs += conv_macs(hidden, out_channels, 1, size)
            channels = out_channels
    return macs


@pytest.mark.parametrize(('name', 'bits'), [('T3.FP32', 32), ('T3.8/8', 8)])
def test_monodepth2(name, bits):
    """MobileNetV2 and a decoder of separable convolutions at 192x640; stem and disparities stay at
    32 bits.
    """
    sizes = [(192 >> level, 640 >> level) for level in range(6)]
    stages = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    quantized = mobilenet_v2(stages, 32, sizes[1]) + conv_macs(320, 1280, 1, sizes[5])
    skips, widths = [16, 24, 32, 96, 1280], [16, 32, 64, 128, 256, 1280]
    for level in range(4, -1, -1):
        quantized += sum(separable(widths[level + 1], widths[level], sizes[level + 1]))
        joined = widths[level] + (skips[level - 1] if level else 0)
        quantized += sum(separable(joined, widths[level], sizes[level]))
    dense = conv_macs(3, 32, 3, sizes[1]) + sum(
        sum(separable(widths[level], 1, sizes[level])) for level in range(4)
    )
    check(name, bits * bits * quantized + 32 * 32 * dense, 1)


def test_efficientdet_d1():
    """Weights of 4 and activations of 8 bits; the stem stays at 32, counted on its padded input."""
    stages = [
        (1, 16, 2, 1, 3),
        (6, 24, 3, 2, 3),
        (6, 40, 3, 2, 5),
        (6, 80, 4, 2, 3),
        (6, 112, 4, 1, 5),
        (6, 192, 5, 2, 5),
        (6, 320, 2, 1, 3),
    ]
    sizes = {level: (640 >> level,) * 2 for level in range(3, 8)}
    quantized = mobilenet_v2(stages, 32, (320, 320))
    # P6 comes from P5; the first cell reads P4 and P5 twice, each time through a convolution of its
    # own.
    for channels, level in [(320, 5), (320, 5), (112, 4), (40, 3), (112, 4), (320, 5)]:
        quantized += conv_macs(channels, 88, 1, sizes[level])
    for level in (6, 5, 4, 3, 4, 5, 6, 7):
        quantized += 4 * sum(separable(88, 88, sizes[level]))
    for size in sizes.values():
        quantized += 2 * 3 * sum(separable(88, 88, size))
        quantized += sum(separable(88, 9 * 90, size)) + sum(separable(88, 9 * 4, size))
    stem = conv_macs(3, 32, 3, (642, 642), stride=2, convention='paper')
    check('T1.4/8', 4 * 8 * quantized + 32 * 32 * stem, 1)
