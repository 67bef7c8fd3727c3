"""Time a wavelet compressed linear layer against nn.Linear on this machine's CPU.

The contenders are nn.Linear on (B, H, W, C), the same product as a channels_last nn.Conv2d, a
QuantLinear without quantizers, which multiplies where that is fastest, and WaveletCompressedLinear
on the map. Shapes with windows divide the map into them, as Swin does.

    python tools/benchmarks/linear_layer.py [--keep 0.25] [--out linear_layer_cpu.json]
"""

from __future__ import annotations

import measuring
import torch
from measuring import gate, relative_error
from torch import Tensor, nn

from mmwcc.layers import QuantLinear, TokenGrid, WaveletCompressedLinear

SHAPES = (
    (96, 384, 128, 256, 0),
    (384, 96, 128, 256, 0),
    (192, 768, 64, 128, 0),
    (768, 192, 64, 128, 0),
    (384, 1536, 32, 64, 0),
    (1536, 384, 32, 64, 0),
    (96, 288, 133, 259, 7),
    (192, 576, 70, 133, 7),
)
"""Input and output channels, height, width and side of the windows, 0 for none."""


def shape(text: str) -> tuple[int, ...]:
    """Read a shape from the command line."""
    numbers = tuple(map(int, text.split(',')))
    if len(numbers) != 5:
        raise ValueError(f'a shape has five numbers, got {text!r}')
    return numbers


def contenders(place: tuple[int, ...], keep_ratio: float) -> measuring.Calls:
    """Return the calls to time, after checking their results."""
    channels, out, height, width, side = place
    dense = nn.Linear(channels, out)
    conv = nn.Conv2d(channels, out, 1)
    conv.load_state_dict(dict(weight=dense.weight[:, :, None, None], bias=dense.bias))
    x: Tensor = torch.randn(1, height, width, channels)
    if side:
        x = torch.randn(height * width // side**2, side * side, channels)
    wavelet = WaveletCompressedLinear.from_linear(dense, keep_ratio=1.0)
    wavelet.token_grid = TokenGrid([(side, side)]) if side else None
    plain = QuantLinear.from_linear(dense)
    with torch.inference_mode():
        for layer in (wavelet, plain):
            error = relative_error(layer(x), dense(x))
            gate(f'{type(layer).__name__} must equal nn.Linear', error, 1e-4)
    wavelet.keep_ratio = keep_ratio
    image = x.reshape(1, -1, *([width] if not side else [side * side]), channels)
    return {
        'linear': measuring.forward(dense, x),
        'conv': measuring.forward(conv, image.permute(0, 3, 1, 2)),
        'plain': measuring.forward(plain, x),
        f'k{keep_ratio:g}': measuring.forward(wavelet, x),
    }


def main() -> None:
    parser = measuring.arguments(__doc__, seconds=2.0)
    parser.add_argument(
        '--shapes',
        type=shape,
        nargs='+',
        default=SHAPES,
        help='channels, output channels, height, width and side of windows (0: none), with commas',
    )
    parser.add_argument('--keep', type=float, default=0.25, help='keep_ratio')
    args = parser.parse_args()
    about = measuring.begin(args, batch=1, keep_ratio=args.keep)
    rows = []
    for place in args.shapes:
        times = measuring.medians(contenders(place, args.keep), args.seconds)
        wavelet = times[f'k{args.keep:g}']
        speedup = {name: times[name] / wavelet for name in ('linear', 'conv')}
        rows.append(dict(shape=place, milliseconds=times, speedup=speedup))
        shown = '  '.join(f'{name} {value:7.2f} ms' for name, value in times.items())
        ratios = ', '.join(f'x{value:.2f} of {name}' for name, value in speedup.items())
        print(f'{",".join(map(str, place)):<20} {shown}  {ratios}', flush=True)
    measuring.write(args.out, 'linear_layer', about, rows)


if __name__ == '__main__':
    measuring.keep_freed_memory()
    main()
