"""Convert a trained compressed checkpoint to integers, and write the config that loads it.

    python tools/deployment/to_integer.py CONFIG CHECKPOINT OUT.pth

OUT.pth holds int8 weights and no optimizer state. OUT.py next to it is the same config with
`integer=True`. Both work with tools/test.py and the inference APIs of mmsegmentation and
mmdetection.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.runner import CheckpointLoader
from torch import nn

from mmwcc.checkpoint import save_checkpoint
from mmwcc.compressed_config import find_compression, is_compressed, with_compression
from mmwcc.inference import UNLEARNED, to_integer
from mmwcc.model_tree import CompressionReport
from mmwcc.progress import Stages
from mmwcc.utils import LaunchError, load_config, load_trained, model_config, one_line_errors, quiet


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description='Convert a trained compressed checkpoint to integers'
    )
    parser.add_argument('config', help='config file that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='checkpoint of the trained model')
    parser.add_argument(
        'out', metavar='OUT.pth', help='checkpoint to write; the config goes to OUT.py'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='change the config, as in training'
    )
    args = parser.parse_args(argv)
    if not args.out.endswith('.pth'):
        parser.error(f'OUT must end in .pth, got {args.out}')
    return args


def integer_config(config: Config, keep_float: list[str]) -> Config:
    """Return a copy of a config whose model has integer layers, except for ``keep_float``.

    The weights are expected from a converted checkpoint.
    """
    config = Config(config.to_dict(), filename=config.filename)
    if not is_compressed(config.model):  # a dense network whose layers come from conv_cfg
        config.model = with_compression(config.model, dict(keep_dense=[]))
    find_compression(config.model)['integer'] = dict(keep_float=keep_float) if keep_float else True
    config.load_from, config.resume = None, False
    return config


def convert(config: Config, checkpoint: str, out: Path) -> tuple[nn.Module, CompressionReport]:
    """Build the model of a config, load a checkpoint, convert and write both.

    Args:
        config: The config the checkpoint was trained with.
        checkpoint: Path of the checkpoint.
        out: Path of the checkpoint to write, ending in .pth.

    Returns:
        The converted model and the report.

    Raises:
        LaunchError: If config has no model, or one that is integer already, or the checkpoint does
            not fit it.
        ValueError: If the model has no layer to convert.
        RuntimeError: If no quantizer has learned its clip.
    """
    if (find_compression(model_config(config)) or {}).get('integer'):
        raise LaunchError(
            f'{config.filename} describes an integer model already. Give the config that the '
            'checkpoint was trained with.'
        )
    stages = Stages('to_integer', 3, verbose=True)
    stages.begin('load the checkpoint')
    model, loaded = load_trained(config, checkpoint)
    stages.begin('convert the layers')
    report = to_integer(model, verbose=False)
    config = integer_config(
        config, [re.escape(layer.name) for layer in report if layer.reason == UNLEARNED]
    )
    stages.begin('write the checkpoint')
    save_checkpoint(model, config, out, loaded.get('meta'))
    return model, report


def weight_bytes(path: str | Path) -> int:
    """Return the bytes of the tensors in a checkpoint's state_dict.

    The checkpoint may be a file of any supported kind or a URL.
    """
    loaded = CheckpointLoader.load_checkpoint(str(path), map_location='cpu', logger='silent')
    return sum(
        tensor.numel() * tensor.element_size()
        for tensor in loaded.get('state_dict', loaded).values()
    )


def main(argv: list[str] | None = None) -> None:
    """Convert, and print what was done."""
    args = parse_args(argv)
    out = Path(args.out)
    with one_line_errors('to_integer', ValueError, RuntimeError), quiet():
        model, report = convert(load_config(args.config, args.cfg_options), args.checkpoint, out)
    print(f'{type(model).__name__} of {args.config} in integers')
    print(report)
    print(
        f'weights and buffers: {weight_bytes(args.checkpoint):,} bytes before, '
        f'{weight_bytes(out):,} now'
    )
    print(f'wrote {out} and {out.with_suffix(".py")}')


if __name__ == '__main__':
    main()
