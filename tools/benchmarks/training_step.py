"""Time a training step of DeepLabV3+ on MobileNetV2, compressed against dense.

A step is forward with its losses, backward and SGD. The contenders are the dense network, WCC 25 %
and 8/8-bit WCC 25 %, each with and without lean activations. They take turns in both memory
formats; the faster one counts. The tool also reports the saved bytes: the size of all tensors that
autograd keeps for backward. Each storage counts once. Parameters and buffers do not count, because
they exist anyway.

    python tools/benchmarks/training_step.py [--size 256] [--batch 4] [--out training_step_cpu.json]
"""

from __future__ import annotations

from collections.abc import Callable

import measuring
import torch
from measuring import FORMATS, fastest, gate, relative_error
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from networks import compressed, deeplab
from torch import Tensor, nn

CONTENDERS = {
    'dense': (None, {}),
    'k0.25': ('wcc_fp_k25', {}),
    'lean k0.25': ('wcc_fp_k25', dict(lean_activations=dict())),
    'w8a8 k0.25': ('wcc_w8a8_k25', {}),
    'lean w8a8 k0.25': ('wcc_w8a8_k25', dict(lean_activations=dict())),
}  # yapf: disable


def labels(batch: int, size: int) -> list[SegDataSample]:
    """Return random label maps of CamVid's 11 classes."""
    return [
        SegDataSample(gt_sem_seg=PixelData(data=torch.randint(11, (1, size, size))))
        for _ in range(batch)
    ]


def loss_of(model: nn.Module, x: Tensor, truth: list[SegDataSample]) -> Tensor:
    """Return the sum of the losses, with the same dropout every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        losses = model(x, truth, mode='loss')
    return sum(value for name, value in losses.items() if 'loss' in name)


def step(model: nn.Module, x: Tensor, truth: list[SegDataSample]) -> Callable[[], None]:
    """Return a call that runs one training step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad()
        loss_of(model, x, truth).backward()
        optimizer.step()

    return run


def saved_bytes(model: nn.Module, x: Tensor, truth: list[SegDataSample]) -> int:
    """Return the bytes that one step keeps for backward."""
    own = {
        tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())
    }
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(model, x, truth)  # kept alive, so that no address is used twice
    del loss
    return sum(kept.values())


def gate_step(dense: nn.Module, x: Tensor, truth: list[SegDataSample]) -> None:
    """Stop unless keeping every coefficient gives the dense network's losses and gradients."""
    same = compressed(dense, 'wcc_fp_k25', pointwise=dict(keep_ratio=1.0))
    losses, gradients = [], []
    for model in (same, dense):
        loss = loss_of(model, x, truth)
        loss.backward()
        losses.append(loss)
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
        model.zero_grad()
    gate('keep_ratio=1 must have the loss of the dense network', relative_error(*losses), 1e-5)
    # Rounding moves values across the bounds of ReLU6: even the two memory formats of the dense
    # network differ by 0.026.
    gate(
        'keep_ratio=1 must have the gradients of the dense network', relative_error(*gradients), 0.1
    )


def main() -> None:
    parser = measuring.arguments(__doc__, seconds=10.0)
    parser.add_argument('--size', type=int, default=256, help='height and width of the images')
    parser.add_argument('--batch', type=int, default=4, help='images in a step')
    parser.add_argument('--scale', type=float, default=1.0, help='width of the backbone')
    args = parser.parse_args()
    about = measuring.begin(args, batch=args.batch, size=args.size, scale=args.scale)
    x, truth = torch.randn(args.batch, 3, args.size, args.size), labels(args.batch, args.size)
    dense = deeplab(args.scale)
    gate_step(dense, x, truth)
    calls, saved = {}, {}
    for name, (preset, changes) in CONTENDERS.items():
        for format, memory_format in FORMATS.items():
            model = compressed(dense, preset, **changes).to(memory_format=memory_format)
            image = x.contiguous(memory_format=memory_format)
            calls[f'{name} {format}'] = step(model, image, truth)
            calls[f'{name} {format}']()  # learns the clips
            saved[f'{name} {format}'] = saved_bytes(model, image, truth)
    times = measuring.medians(calls, args.seconds)
    rows = [
        dict(
            name=name,
            milliseconds={key: value for key, value in times.items() if key.startswith(f'{name} ')},
            time_ratio=fastest(times, name) / fastest(times, 'dense'),
            saved_bytes=int(fastest(saved, name)),
            saved_ratio=fastest(saved, name) / fastest(saved, 'dense'),
        )
        for name in CONTENDERS
    ]
    for row in rows:
        print(
            f'{row["name"]:<16} {min(row["milliseconds"].values()):8.1f} ms  '
            f'x{row["time_ratio"]:.2f} of dense  saved {row["saved_bytes"] / 1e6:8.1f} MB  '
            f'x{row["saved_ratio"]:.3f} of dense'
        )
    measuring.write(args.out, 'training_step', about, rows)


if __name__ == '__main__':
    measuring.keep_freed_memory()
    main()
