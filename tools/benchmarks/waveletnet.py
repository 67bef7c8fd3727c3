"""Time WaveletNet's projection and the whole network against the dense layers they replace.

The projection is a DFWT and a 1x1 WConv at kappa = 3. `fused` passes the pieces of the transform
directly to the convolutions, `joined` writes them into one tensor first, and `dense` is the
ordinary
1x1 convolution of MobileNetV2. The networks are those for ImageNet at 224x224, without classifier.
MobileNetV2 is WaveletNet with kappa = (0, 0, 0).

    python tools/benchmarks/waveletnet.py [--threads 1] [--seconds 1] [--out waveletnet_cpu.json]
"""

from __future__ import annotations

import measuring
import torch
from measuring import FORMATS, fastest, forward, gate, medians, relative_error, step
from torch import nn

from mmwcc.layers import DepthwiseFastWaveletTransform, WaveletConv2d
from mmwcc.models import WaveletNet

KAPPA = 3
# Size of the feature map, input and output channels of WaveletNet's projections at 224x224.
PROJECTIONS = (
    (112, 32, 16),
    (56, 144, 24),
    (28, 192, 32),
    (14, 384, 64),
    (14, 576, 96),
    (7, 960, 160),
    (7, 960, 320),
)
NETWORKS = dict(dense=(0, 0, 0), wavelet=(0, 3, 3), untransformed=(0, 0, 3), deep=(0, 5, 5))
BATCHES = (1, 8)


def projections(channels: int, outputs: int) -> dict[str, nn.Module]:
    """Build the three variants of one projection; the wavelet ones share their weights."""
    fused = WaveletConv2d(channels, outputs, 1, bias=False, kappa=KAPPA, dfwt=KAPPA)
    plain = WaveletConv2d(channels, outputs, 1, bias=False, kappa=KAPPA)
    plain.load_state_dict(fused.state_dict())
    return dict(
        dense=nn.Conv2d(channels, outputs, 1, bias=False),
        fused=fused,
        joined=nn.Sequential(DepthwiseFastWaveletTransform(KAPPA), plain),
    )


def time_all(
    modules: dict[str, nn.Module], x: torch.Tensor, seconds: float, training: bool
) -> dict[str, float]:
    """Return the median time of each module in milliseconds, in its faster memory format.

    The time is that of forward alone, or of forward and backward if ``training``.
    """
    call = step if training else forward
    times = medians(
        {
            f'{name} {kind}': call(module, x.contiguous(memory_format=memory_format))
            for name, module in modules.items()
            for kind, memory_format in FORMATS.items()
        },
        seconds,
    )
    return {name: fastest(times, name) for name in modules}


def print_row(label: str, times: dict[str, float]) -> None:
    print(
        f'{label:36}'
        + ''.join(
            f'{name} {value:8.3f} ms ({times["dense"] / value:4.2f}x)  '
            for name, value in times.items()
        ),
        flush=True,
    )


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write the file given on the command line."""
    parser = measuring.arguments(__doc__, seconds=1.0)
    args = parser.parse_args(argv)
    about = measuring.begin(args)
    rows = []
    for size, channels, outputs in PROJECTIONS:
        modules = projections(channels, outputs)
        for batch in BATCHES:
            x = torch.randn(batch, channels, size, size)
            gate(
                'both ways of the projection must agree',
                relative_error(modules['fused'](x), modules['joined'](x)),
                1e-6,
            )
            for training in (False, True):
                times = time_all(modules, x, args.seconds, training)
                kind = 'step' if training else 'forward'
                print_row(f'{size}x{size} {channels} -> {outputs}, batch {batch}, {kind}', times)
                rows.append(
                    dict(
                        map=size,
                        channels=channels,
                        outputs=outputs,
                        batch=batch,
                        kind=kind,
                        ms=times,
                    )
                )
    networks = {name: WaveletNet(kappa=kappa).eval() for name, kappa in NETWORKS.items()}
    for batch in BATCHES:
        times = time_all(networks, torch.randn(batch, 3, 224, 224), args.seconds, training=False)
        print_row(f'network, batch {batch}, forward', times)
        rows.append(dict(network='ImageNet, 224x224', batch=batch, kind='forward', ms=times))
    measuring.write(args.out, 'waveletnet', about, rows)


if __name__ == '__main__':
    measuring.keep_freed_memory()
    main()
