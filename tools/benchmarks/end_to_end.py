"""Time inference of DeepLabV3+ on MobileNetV2, compressed against dense, on this machine's CPU.

The contenders are the dense network, WCC 25 %, WCC 25 % with fused inverted residual blocks, WCC
25 % only where the shipped table says that it is faster, and 8/8-bit WCC 25 % in integers. Each is
timed in both memory formats, and the faster one counts. In "folded" networks, batch normalization
is
folded into the convolutions.

    python tools/benchmarks/end_to_end.py [--size 512 1024] [--out end_to_end_cpu.json]
"""

from __future__ import annotations

import copy

import measuring
import torch
from measuring import FORMATS, fastest, gate, relative_error
from mmcv.cnn import fuse_conv_bn
from networks import compressed, deeplab
from torch import Tensor, nn

from mmwcc.inference import fuse_inverted_residuals, to_integer


def run(model: nn.Module, x: Tensor) -> Tensor:
    """Return the logits."""
    with torch.inference_mode():
        return model(x, mode='tensor')


def folded(model: nn.Module) -> nn.Module:
    """Return a copy with batch normalization folded into the convolutions."""
    return fuse_conv_bn(copy.deepcopy(model))


def fused(model: nn.Module) -> nn.Module:
    """Return a copy with fused inverted residual blocks and everything else folded."""
    model = copy.deepcopy(model)
    fuse_inverted_residuals(model, verbose=False)
    return fuse_conv_bn(model)


def integer(dense: nn.Module, x: Tensor) -> tuple[nn.Module, nn.Module]:
    """Return the fake-quantized network and the integer network converted from it.

    The clips are those of one batch.
    """
    quantized = compressed(dense, 'wcc_w8a8_k25')
    statistics = {
        name: buffer.clone() for name, buffer in quantized.named_buffers() if 'running' in name
    }
    with torch.no_grad():
        # Two images, because batch normalization needs more than one.
        quantized.train()(torch.cat([x, x]), mode='tensor')
    quantized.eval().load_state_dict(statistics, strict=False)
    whole = copy.deepcopy(quantized)
    to_integer(whole, verbose=False)
    return quantized, whole


def networks(dense: nn.Module, x: Tensor) -> dict[str, nn.Module]:
    """Return the contenders by name, after checking their results."""
    wavelet = compressed(dense, 'wcc_fp_k25')
    faster = compressed(dense, 'wcc_fp_k25', only_if_faster=dict(input_shape=tuple(x.shape[2:])))
    everything = compressed(dense, 'wcc_fp_k25', pointwise=dict(keep_ratio=1.0))
    quantized, whole = integer(dense, x[:, :, :128, :128])
    found = {
        'dense': dense,
        'folded dense': folded(dense),
        'k0.25': wavelet,
        'folded k0.25': folded(wavelet),
        'fused k0.25': fused(wavelet),
        'k0.25-where-faster': faster,
        'folded k0.25-where-faster': folded(faster),
        'int8 k0.25': whole,
    }
    expected = run(dense, x)
    for name, model in (
        ('keep_ratio=1', everything),
        ('the fused network at keep_ratio=1', fused(everything)),
        ('the folded network', found['folded dense']),
    ):
        gate(f'{name} must equal the dense network', relative_error(run(model, x), expected), 1e-4)
    error = relative_error(run(whole, x), run(quantized, x))
    gate('the integer network must equal the fake-quantized one', error, 1e-2)
    return found


def main() -> None:
    parser = measuring.arguments(__doc__, seconds=10.0)
    parser.add_argument(
        '--size', type=int, nargs=2, default=[512, 1024], help='height and width of the image'
    )
    parser.add_argument('--scale', type=float, default=1.0, help='width of the backbone')
    args = parser.parse_args()
    about = measuring.begin(args, batch=1, size=args.size, scale=args.scale)
    x = torch.randn(1, 3, *args.size)
    found = networks(deeplab(args.scale).eval(), x)
    calls = {}
    for format, memory_format in FORMATS.items():
        image = x.contiguous(memory_format=memory_format)
        calls |= {
            f'{name} {format}': measuring.forward(
                copy.deepcopy(model).to(memory_format=memory_format), image, mode='tensor'
            )
            for name, model in found.items()
        }
    times = measuring.medians(calls, args.seconds)
    rows = [
        dict(
            name=name,
            milliseconds={format: times[f'{name} {format}'] for format in FORMATS},
            speedup=fastest(times, 'dense') / fastest(times, name),
        )
        for name in found
    ]
    for row in rows:
        shown = '  '.join(
            f'{format} {value:7.1f} ms' for format, value in row['milliseconds'].items()
        )
        print(f'{row["name"]:<25} {shown}  x{row["speedup"]:.2f} of dense')
    measuring.write(args.out, 'end_to_end', about, rows)


if __name__ == '__main__':
    measuring.keep_freed_memory()
    main()
