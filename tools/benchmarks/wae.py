"""Time WAE networks against the dense ones they replace on this machine's CPU, in inference.

Networks are built from the shipped configs, with batch normalization folded into convolutions.
Contenders run interleaved in one process, after a check of their costs and outputs. The tool prints
medians and what bounds them: the networks' share of multiply-accumulates, and how fast each part
runs.

Every network is timed in several forms: as it is in both memory formats, for weights and images
alike; frozen by torch.jit.optimize_for_inference; compiled by torch.compile with frozen weights;
and
run by ONNX Runtime (pip install "mmwcc[onnx]"). Its fastest form counts.

    python tools/benchmarks/wae.py [--networks vgg16 resnet50] [--batches 1 8] [--threads 2] \\
        [--out wae_cpu.json]
    python tools/benchmarks/wae.py --pair DENSE_CONFIG.py WAE_CONFIG.py --size 360 480 --batches 1
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
import torch._inductor.config
from measuring import (
    FORMATS,
    begin,
    fastest,
    gate,
    keep_freed_memory,
    medians,
    relative_error,
    write,
)
from mmcv.cnn.utils import fuse_conv_bn
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmwcc.deployment import open_session

CONFIGS = Path(__file__).parents[2] / 'configs' / 'wae'
PAPER = dict(vgg16=3.13, resnet50=1.88)
GMAC = dict(
    decomposition=0.2637, backbone=3.8367, high_backbone=0.2439, head=0.0105, fused_head=0.0272
)
"""What the parts of WAE + VGG16 must cost at 224x224."""


def build(path: str | Path) -> nn.Module:
    """Return the network of a config with random weights, for inference."""
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.eval()
    return model


def shipped(name: str) -> Path:
    """Return the path of a config for ImageNet."""
    return CONFIGS / f'{name}_imagenet-224x224.py'


def multiply_accumulates(model: nn.Module, x: Tensor) -> Counter:
    """Return the multiply-accumulates of convolutions and linear layers, by part of the model."""
    count, handles = Counter(), []
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            part = name.split('.')[0]

            def add(layer, _, output, part=part):
                count[part] += layer.weight[0].numel() * output.numel()

            handles.append(layer.register_forward_hook(add))
    with torch.inference_mode():
        model(x)
    for handle in handles:
        handle.remove()
    return count


def check_costs(name: str, model: nn.Module) -> None:
    """Stop unless WAE + VGG16 has the costs of the published network."""
    if name == 'vgg16':
        x = torch.zeros(1, 3, 224, 224, device=next(model.parameters()).device)
        found = {
            part: round(macs / 1e9, 4) for part, macs in multiply_accumulates(model, x).items()
        }
        if found != GMAC:
            sys.exit(
                f'wae: the parts of WAE + VGG16 must cost {GMAC} GMAC, got {found}, so nothing was '
                'timed.'
            )


def fold(model: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Return the network with batch normalization folded into convolutions.

    Stop if this changes its result.
    """
    x = torch.randn(1, 3, *size)
    folded = fuse_conv_bn(deepcopy(model))
    with torch.inference_mode():
        expected, got = model(x), folded(x)
    gate('folding batch normalization keeps the outputs', relative_error(got, expected), 1e-4)
    return folded


def freeze(model: nn.Module, x: Tensor) -> Callable:
    """Return the network with weights in oneDNN's own layouts.

    Otherwise every call would convert them.
    """
    with torch.no_grad(), warnings.catch_warnings():
        # torch.jit is deprecated, but still the only way without a compiler.
        warnings.simplefilter('ignore')
        return torch.jit.optimize_for_inference(
            torch.jit.freeze(torch.jit.trace(model, x, check_trace=False))
        )


def compiled(model: nn.Module, x: Tensor) -> Callable:
    """Return the network compiled for channels_last images, with weights in oneDNN's layouts."""
    network = torch.compile(deepcopy(model).to(memory_format=torch.channels_last), dynamic=False)
    # torch.compile's own option for freezing takes effect too late.
    with torch.no_grad(), torch._inductor.config.patch(freezing=True):
        network(x)
    return network


def exported(model: nn.Module, x: Tensor) -> Callable:
    """Return the network run by ONNX Runtime, which prepares calls, weights and memory once."""
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)  # it would list optional packages
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch itself calls deprecated functions
        program = torch.onnx.export(model, (x,), input_names=['x'], dynamo=True, verbose=False)
    session = open_session(program.model_proto)
    return lambda x: torch.from_numpy(session.run(None, dict(x=x.numpy()))[0])


def call(model: Callable, x: Tensor) -> Callable[[], Tensor]:
    """Return a call that runs inference."""

    def run() -> Tensor:
        with torch.no_grad():
            return model(x)

    return run


def forms(model: nn.Module, x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return a call for each form of a network, all with the same outputs."""
    images = {
        name: x.contiguous(memory_format=memory_format) for name, memory_format in FORMATS.items()
    }
    calls = {
        name: call(deepcopy(model).to(memory_format=memory_format), images[name])
        for name, memory_format in FORMATS.items()
    }
    calls['frozen'] = call(freeze(model, x), x)
    calls['compiled'] = call(compiled(model, images['channels_last']), images['channels_last'])
    calls['onnxruntime'] = call(exported(model, x), x)
    expected = calls['contiguous']()
    for name, run in calls.items():
        gate(f'{name} returns what the network returns', relative_error(run(), expected), 1e-4)
    return calls


def part_calls(model: nn.Module, x: Tensor) -> dict[str, Callable[[], None]]:
    """Return a call for each part of a WAE classifier, on the output of the parts before."""
    with torch.inference_mode():
        low, high = (part.clone() for part in model.decomposition(x))
        _, _, feature, fused = model.extract_parts(x)
        low, high = model.norm_low(low), model.norm_high(high)
    return dict(
        decomposition=call(model.decomposition, x),
        backbone=call(model.backbone, low),
        high_backbone=call(model.high_backbone, high),
        head=call(model.head, feature),
        fused_head=call(model.fused_head, fused),
    )


def measure(
    name: str, batch: int, models: dict[str, nn.Module], size: tuple[int, int], seconds: float
) -> dict:
    """Time one network at one batch size."""
    x = torch.randn(batch, 3, *size)
    times = medians(
        {
            f'{kind} {form}': run
            for kind, model in models.items()
            for form, run in forms(model, x).items()
        },
        seconds,
    )
    best = {kind: fastest(times, kind) for kind in models}
    parts = {}
    if hasattr(models['wae'], 'extract_parts'):
        memory_format = FORMATS[min(FORMATS, key=lambda form: times[f'wae {form}'])]
        parts = medians(
            part_calls(
                deepcopy(models['wae']).to(memory_format=memory_format),
                x.contiguous(memory_format=memory_format),
            ),
            seconds / 4,
        )
    macs = {
        kind: multiply_accumulates(model, torch.zeros(1, 3, *size))
        for kind, model in models.items()
    }
    bound = macs['dense'].total() / macs['wae'].total()
    row = dict(
        network=name,
        batch=batch,
        milliseconds=times,
        speedup=best['dense'] / best['wae'],
        paper=PAPER.get(name),
        bound=bound,
        size=list(size),
        dense_gmac=macs['dense'].total() / 1e9,
        dense_gmac_per_second=batch * macs['dense'].total() / best['dense'] / 1e6,
        parts={
            part: dict(
                gmac=macs['wae'][part] / 1e9,
                milliseconds=milliseconds,
                gmac_per_second=batch * macs['wae'][part] / milliseconds / 1e6,
            )
            for part, milliseconds in parts.items()
        },
    )
    report(row, best)
    return row


def report(row: dict, best: dict[str, float]) -> None:
    """Print the measurements."""
    paper = f'paper x{row["paper"]:g}, ' if row['paper'] else ''
    print(
        f'{row["network"]} batch {row["batch"]}: dense {best["dense"]:.1f} ms, WAE '
        f'{best["wae"]:.1f} ms, x{row["speedup"]:.2f} ({paper}multiply-accumulates '
        f'x{row["bound"]:.2f}; dense: {row["dense_gmac"]:.2f} GMAC at '
        f'{row["dense_gmac_per_second"]:.0f} GMAC/s)'
    )
    for part, values in row['parts'].items():
        print(
            f'    {part:<14} {values["gmac"]:7.4f} GMAC {values["milliseconds"]:7.1f} ms '
            f'{values["gmac_per_second"]:7.1f} GMAC/s'
        )
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--networks', nargs='+', choices=list(PAPER), default=list(PAPER))
    parser.add_argument(
        '--pair', nargs=2, metavar=('DENSE', 'WAE'), help='time these two configs instead'
    )
    parser.add_argument(
        '--size', type=int, nargs=2, default=[224, 224], help='height and width of the images'
    )
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 8], help='batch sizes')
    parser.add_argument(
        '--threads', type=int, default=torch.get_num_threads(), help='threads of torch'
    )
    parser.add_argument('--seconds', type=float, default=10.0, help='time for each line')
    parser.add_argument('--out', type=Path, help='JSON file')
    args = parser.parse_args()
    about = begin(args)
    rows = []
    pairs = {
        name: (shipped(f'{name}_dense_8xb32-90e'), shipped(f'{name}_wae-stage3_8xb32-10e'))
        for name in args.networks
    }
    for name, (dense, wae) in (
        {Path(args.pair[1]).stem: args.pair} if args.pair else pairs
    ).items():
        models = dict(dense=build(dense), wae=build(wae))
        check_costs(name, models['wae'])
        models = {kind: fold(model, tuple(args.size)) for kind, model in models.items()}
        rows += [
            measure(name, batch, models, tuple(args.size), args.seconds) for batch in args.batches
        ]
    write(args.out, 'wae', about, rows)


if __name__ == '__main__':
    keep_freed_memory()
    main()
