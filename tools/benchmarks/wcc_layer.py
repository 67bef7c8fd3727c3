"""Time a wavelet compressed convolution against nn.Conv2d on this machine's CPU.

Measures forward and a training step of the compressed layer at each keep ratio, in float32 and in
true int8, and of nn.Conv2d. Each is timed in both memory formats, and the faster one counts on
either side. Two more contenders are optional: the dense layer under torch.compile, and the layer of
the paper's authors (https://github.com/BGUCompSci/WaveletCompressedConvolution, a folder that holds
WCC/WCC.py).

The authors' layer gets the same weights, levels and keep ratio. It is compared with ours without
quantizers on either side, and with quantizers at 8/8 bits on both. In inference our int8 layer
computes the same as the latter, so it is compared with it as well. Next to these ratios is their
floor: the time of the authors' layer over that of our float32 kernels, if each ran at the copy
    speed
for 256 MB or at the speed of a product, whichever takes longer. It is a bound for layers whose
feature maps fit no cache; other layers can exceed it.

    python tools/benchmarks/wcc_layer.py [--keep 0.25 0.125] [--authors PATH] [--compile] \\
        [--out wcc_layer_cpu.json]
"""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from pathlib import Path

import measuring
import torch
import torch.nn.functional as F
from measuring import FORMATS, fastest, gate, kernel_time, relative_error
from torch import Tensor, nn

from mmwcc import kernels
from mmwcc.functional import pack
from mmwcc.inference import to_integer
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d

SHAPES = ((128, 256, 1024), (128, 1024, 256), (64, 960, 160), (96, 512, 1024), (64, 144, 24))
"""Height and width of the map, input channels, output channels."""

AUTHORS_KEEP = 0.25

W8A8 = dict(
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)


def gate_layer(dense: nn.Conv2d, x: Tensor, keep_ratio: float) -> None:
    """Stop unless the layer computes the right result.

    If it keeps everything this is the dense result, otherwise that of equation (9) in float64.
    Norms in float32 and float64 may order positions differently if they are equal up to rounding.
    The float64 result is therefore computed at the positions of the layer, which must be the
    largest ones up to rounding.
    """
    layer = WaveletCompressedConv2d.from_conv2d(dense, keep_ratio=1.0)
    with torch.no_grad():
        gate('keep_ratio=1 must equal nn.Conv2d', relative_error(layer(x), dense(x)), 1e-5)
        layer.keep_ratio = keep_ratio
        rows, slot = pack(x, keep_ratio=keep_ratio)
        norms, kept = kernels.haar_norms(x.double(), layer.levels), slot >= 0
        if kept.any() and not kept.all():
            excess = norms[~kept].max() / norms[kept].min() - 1
            gate('the kept positions must be the largest', excess.item(), 1e-5)
        rows = kernels.haar_pack(x.double(), slot, rows.shape[1], layer.levels)
        rows = F.linear(rows, dense.weight.double().flatten(1))
        bias = None if dense.bias is None else dense.bias.double()
        expected = kernels.haar_unpack(rows, slot, bias, *x.shape[2:], layer.levels, False)
        gate(
            'the layer must equal equation (9) in float64', relative_error(layer(x), expected), 1e-5
        )


def quantized(layer_type: type, dense: nn.Conv2d, x: Tensor, **compression) -> nn.Module:
    """Build an 8/8-bit layer and calibrate its clips on ``x``."""
    layer = layer_type.from_conv2d(
        nn.Conv2d(dense.in_channels, dense.out_channels, 1, bias=dense.bias is not None),
        **W8A8,
        **compression,
    )
    layer.load_state_dict(dense.state_dict(), strict=False)
    with torch.no_grad():
        layer.train()(x)
    return layer.eval()


def integer(layer_type: type, dense: nn.Conv2d, x: Tensor, **compression) -> nn.Module:
    """Build a true int8 layer, and stop unless it matches the fake-quantized one."""
    model = nn.Sequential(quantized(layer_type, dense, x, **compression))
    with torch.inference_mode():
        expected = model(x)
        to_integer(model, verbose=False)
        error = relative_error(model(x), expected)
    gate(f'the int8 {layer_type.__name__} must equal the fake-quantized one', error, 1e-3)
    return model


def authors_layers(
    path: Path, dense: nn.Conv2d, x: Tensor, keep_ratio: float
) -> dict[str, nn.Module]:
    """Load the authors' layer with the weights of ``dense``, without and with its quantizers.

    Raises:
        SystemExit: If there is no such layer, or its result differs from ours.
    """
    if not (path / 'WCC' / 'WCC.py').is_file():
        sys.exit(
            f'wcc_layer: --authors must be a folder that holds WCC/WCC.py, got {path}. Clone '
            'https://github.com/BGUCompSci/WaveletCompressedConvolution and name its folder.'
        )
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))
    theirs = {}
    for name in ('', 'w8a8 '):
        layer = import_module('WCC.WCC').WCC(
            dense.in_channels, dense.out_channels, levels=3, compress_rate=keep_ratio
        )
        layer.weight = nn.Parameter(dense.weight.detach().squeeze(-1))
        if not name:
            layer.weight_quant = layer.act_quant = nn.Identity()
        theirs[f'authors {name}k{keep_ratio:g}'] = layer
    ours, exact = (
        WaveletCompressedConv2d.from_conv2d(dense, keep_ratio=keep_ratio),
        theirs[f'authors k{keep_ratio:g}'],
    )
    with torch.no_grad():  # on a small map, so that no two positions are equal up to rounding
        small = x[:, :, :16, :16].contiguous()
        gate("ours must equal the authors' layer", relative_error(ours(small), exact(small)), 1e-5)
    return theirs


def contenders(
    dense: nn.Conv2d, x: Tensor, args
) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """Return two dicts of layers by name: those to train and run, and those only to run."""
    both, inference = dict(dense=dense), {}
    for ratio in args.keep:
        both[f'k{ratio:g}'] = WaveletCompressedConv2d.from_conv2d(dense, keep_ratio=ratio)
        inference[f'int8 k{ratio:g}'] = integer(WaveletCompressedConv2d, dense, x, keep_ratio=ratio)
    inference['int8 dense'] = integer(QuantConv2d, dense, x)
    if args.compile:
        both['compiled dense'] = torch.compile(dense)
    if args.authors:
        ratio = AUTHORS_KEEP
        both[f'w8a8 k{ratio:g}'] = quantized(WaveletCompressedConv2d, dense, x, keep_ratio=ratio)
        both |= authors_layers(args.authors, dense, x, ratio)
    return both, inference


def floor_times(
    size: int, channels: int, out: int, keep_ratio: float, rates: dict[str, float]
) -> dict[str, float]:
    """Return the times of the float32 layer in milliseconds at the machine's rates, by mode.

    Forward has norms; pack; product; unpack. A training step adds: pack of the gradient; two
    products; unpack of the gradient. The time to select positions is not counted.
    """
    pixels = size**2
    kept, kernel = keep_ratio * pixels, partial(kernel_time, rates)
    product = kernel(kept * (channels + out), kept * channels * out)
    moves = [(pixels + kept) * channels, (pixels + kept) * out]
    forward = kernel(pixels * channels) + product + sum(map(kernel, moves))
    return {
        'forward': 1e3 * forward,
        'training step': 1e3 * (forward + 2 * product + sum(map(kernel, moves))),
    }


def over_authors(times: dict[str, float], floor: float) -> dict[str, float]:
    """Return the speed-up over the authors' layer, as measured and at our floor."""
    name = f'k{AUTHORS_KEEP:g}'
    theirs = {name: name, f'w8a8 {name}': f'w8a8 {name}', f'int8 {name}': f'w8a8 {name}'}
    ratios = {
        ours: fastest(times, f'authors {other}') / fastest(times, ours)
        for ours, other in theirs.items()
        if f'{ours} contiguous' in times
    }
    return dict(ratios, floor=fastest(times, f'authors {name}') / floor)


def measure(size: int, channels: int, out: int, rates: dict[str, float], args) -> list[dict]:
    """Time one shape: a row for forward and one for a training step."""
    dense = nn.Conv2d(channels, out, 1, bias=False)
    images = {
        name: torch.randn(1, channels, size, size).to(memory_format=format)
        for name, format in FORMATS.items()
    }
    for ratio in args.keep:
        gate_layer(dense, images['channels_last'], ratio)
    both, inference = contenders(dense, images['channels_last'], args)
    rows = []
    modes = (
        ('forward', measuring.forward, both | inference),
        ('training step', measuring.step, both),
    )
    for mode, prepare, layers in modes:
        calls = {
            f'{name} {format}': prepare(layer, x)
            for name, layer in layers.items()
            for format, x in images.items()
        }
        times = measuring.medians(calls, args.seconds)
        best = fastest(times, 'dense')
        speedup = {name: best / fastest(times, name) for name in layers if name != 'dense'}
        ratios = {}
        if args.authors:
            ratios = over_authors(
                times, floor_times(size, channels, out, AUTHORS_KEEP, rates)[mode]
            )
        rows.append(
            dict(
                size=size,
                channels=channels,
                out=out,
                mode=mode,
                milliseconds=times,
                speedup=speedup,
                over_authors=ratios,
            )
        )
        shown = '  '.join(f'{name} x{ratio:.2f}' for name, ratio in speedup.items())
        print(
            f'{size}x{size} {channels:>4} -> {out:<4}  {mode:<13}  dense {best:7.2f} ms  {shown}',
            flush=True,
        )
        if ratios:
            print(
                "    times the authors' layer: "
                + '  '.join(f'{name} {ratio:.1f}' for name, ratio in ratios.items())
            )
    return rows


def main() -> None:
    parser = measuring.arguments(__doc__, seconds=2.0)
    parser.add_argument(
        '--keep', type=float, nargs='+', default=[0.5, 0.25, 0.125], help='keep ratios'
    )
    parser.add_argument(
        '--shapes', nargs='+', metavar='SIZE,C,O', help='by default those of the documentation'
    )
    parser.add_argument(
        '--authors', type=Path, help="folder of the authors' code, timed at keep ratio 0.25"
    )
    parser.add_argument(
        '--compile', action='store_true', help='also torch.compile of the dense layer'
    )
    args = parser.parse_args()
    about = measuring.begin(args, batch=1)
    shapes = [tuple(map(int, shape.split(','))) for shape in args.shapes] if args.shapes else SHAPES
    rates = measuring.machine_rates() if args.authors else {}
    rows = [row for shape in shapes for row in measure(*shape, rates, args)]
    measuring.write(args.out, 'wcc_layer', about, rows)


if __name__ == '__main__':
    measuring.keep_freed_memory()
    main()
