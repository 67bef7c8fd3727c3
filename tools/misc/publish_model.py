"""Publish the weights of a checkpoint as safetensors and JSON.

    python tools/misc/publish_model.py CHECKPOINT OUT.safetensors

The result needs no pickle and has no state that only training needs. OUT.safetensors loads like any
checkpoint: `init_model(config, 'OUT.safetensors')` or `tools/test.py CONFIG OUT.safetensors`.
OUT.json next to it holds the config text, compression, classes, metrics and the sha256 of the
weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.runner import CheckpointLoader

from mmwcc.deployment import DROPPED, publish
from mmwcc.utils import check_checkpoint, is_address, one_line_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description='Publish the weights of a checkpoint without pickle'
    )
    parser.add_argument('checkpoint', help='checkpoint that mmengine wrote')
    parser.add_argument(
        'out', metavar='OUT.safetensors', help='file to write; what it is goes to OUT.json'
    )
    parser.add_argument(
        '--no-ema',
        action='store_true',
        help='take the trained weights instead of the averages that an EMAHook kept',
    )
    args = parser.parse_args(argv)
    if not args.out.endswith('.safetensors'):
        parser.error(f'OUT must end in .safetensors, got {args.out}')
    return args


def main(argv: list[str] | None = None) -> None:
    """Publish, and print what was written and what was left out."""
    args = parse_args(argv)
    with one_line_errors('publish_model', ValueError, TypeError, ModuleNotFoundError):
        check_checkpoint(args.checkpoint)
        checkpoint = CheckpointLoader.load_checkpoint(
            args.checkpoint, map_location='cpu', logger='silent'
        )
        weights, meta = publish(checkpoint, args.out, ema=not args.no_ema)
    left = [key for key in DROPPED if key in checkpoint]
    if not is_address(args.checkpoint):
        print(f'{args.checkpoint}: {Path(args.checkpoint).expanduser().stat().st_size:,} bytes')
    print(f'wrote {weights} ({weights.stat().st_size:,} bytes) and {meta}')
    print(f'left out: {", ".join(left) if left else "nothing"}')


if __name__ == '__main__':
    main()
