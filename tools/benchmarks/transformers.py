"""Time inference of networks with linear layers, compressed against dense, on this machine's CPU.

The contenders are the dense network, the dense network whose linear layers multiply where that is
fastest, WCC 25 % in convolutions and linear layers, the same only where the shipped table says that
it is faster, and the latter with its 8/8-bit convolutions in integers. Linear layers have no
integer form, so that they are quantized in float there.

    python tools/benchmarks/transformers.py [--networks upernet_swin-t] [--size 512 1024]
"""

from __future__ import annotations

import copy

import measuring
import torch
from measuring import gate, relative_error
from mmengine.model import revert_sync_batchnorm
from networks import compressed
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmwcc.inference import to_integer
from mmwcc.model_tree import is_plain
from mmwcc.post_training import calibrate
from mmwcc.utils import build_model, load_config, register_all_modules

CONFIGS = {
    'segnext_mscan-s': 'mmseg::segnext/segnext_mscan-s_1xb16-adamw-160k_ade20k-512x512.py',
    'segformer_mit-b0': 'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    'segformer_mit-b2': 'mmseg::segformer/segformer_mit-b2_8xb2-160k_ade20k-512x512.py',
    'upernet_swin-t': (
        'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
    ),
    'upernet_vit-s': 'mmseg::vit/vit_deit-s16_upernet_8xb2-80k_ade20k-512x512.py',
    'rtmdet_tiny': 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'mask2former_r50': 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
}


def build(name: str) -> nn.Module:
    """Build a dense network with random weights, in eval mode."""
    register_all_modules()
    model = revert_sync_batchnorm(build_model(load_config(CONFIGS[name])))
    model.eval()
    return model


def run(model: nn.Module, x: Tensor) -> Tensor:
    """Return the first output. Heads that draw random numbers always draw the same."""
    torch.manual_seed(0)
    with torch.inference_mode():
        return next(leaf for leaf in tree_leaves(model(x, mode='tensor')) if torch.is_tensor(leaf))


def integer(dense: nn.Module, x: Tensor, where: dict) -> nn.Module:
    """Return the network with 8/8-bit layers, whose convolutions compute in integers."""
    quantized = compressed(dense, 'wcc_linear_w8a8_k25', only_if_faster=where)
    calibrate(quantized, [x], forward=run)
    quantized.eval()
    to_integer(quantized, verbose=False)
    return quantized


def networks(dense: nn.Module, x: Tensor) -> dict[str, nn.Module]:
    """Return the contenders by name, after checking their results."""
    where = dict(input_shape=tuple(x.shape[2:]))
    plain = dict(pointwise=None, other=None, linear=dict(type='mmwcc.QuantLinear'))
    has_linear = any(is_plain(m) and isinstance(m, nn.Linear) for m in dense.modules())
    found = {'dense': dense}
    if has_linear:
        found['dense as maps'] = compressed(dense, 'wcc_linear_fp_k25', **plain)
    found['k0.25'] = compressed(dense, 'wcc_linear_fp_k25')
    found['k0.25-where-faster'] = compressed(dense, 'wcc_linear_fp_k25', only_if_faster=where)
    found['int8 k0.25-where-faster'] = integer(dense, x, where)
    everything = dict(pointwise=dict(keep_ratio=1.0), linear=dict(keep_ratio=1.0))
    whole = compressed(dense, 'wcc_linear_fp_k25', **everything)
    error = relative_error(run(whole, x), run(dense, x))
    gate('keep_ratio=1 must equal the dense network', error, 1e-3)
    return found


def main() -> None:
    parser = measuring.arguments(__doc__, seconds=10.0)
    parser.add_argument(
        '--networks', nargs='+', choices=CONFIGS, default=[*CONFIGS], help='what to time'
    )
    parser.add_argument(
        '--size', type=int, nargs=2, default=[512, 1024], help='height and width of the image'
    )
    args = parser.parse_args()
    about = measuring.begin(args, batch=1, size=args.size)
    rows = []
    for name in args.networks:
        x = torch.randn(1, 3, *args.size)
        found = networks(build(name), x)
        calls = {
            kind: measuring.forward(copy.deepcopy(model), x, mode='tensor')
            for kind, model in found.items()
        }
        times = measuring.medians(calls, args.seconds)
        for kind, value in times.items():
            print(f'{name:<18} {kind:<26} {value:8.1f} ms  x{times["dense"] / value:.2f} of dense')
        rows.append(dict(name=name, milliseconds=times))
    measuring.write(args.out, 'transformers', about, rows)


if __name__ == '__main__':
    measuring.keep_freed_memory()
    main()
