"""Convert a trained compressed checkpoint to integers, and write the config that loads it.

    python tools/deployment/to_integer.py CONFIG CHECKPOINT OUT.pth
    python tools/deployment/to_integer.py CONFIG CHECKPOINT OUT.pth --maps --images 32

OUT.pth holds int8 weights and no optimizer state. OUT.py next to it is the same config with
`integer=True`. Auxiliary heads, which only training uses, are left out of both. Both work with
tools/test.py and the inference APIs of mmsegmentation and mmdetection.

With --maps, the maps between layers get scales, which are learned from a few training images. Then
the convolutions of every geometry compute in integers, and most maps between them have 8 bits.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import CheckpointLoader
from torch import nn

from mmwcc.checkpoint import save_checkpoint
from mmwcc.compressed_config import find_compression, is_compressed, with_compression
from mmwcc.deployment import RawOutputs
from mmwcc.inference import UNLEARNED, record, to_integer
from mmwcc.maps import add_map_scales
from mmwcc.model_tree import CompressionReport
from mmwcc.post_training import calibrate
from mmwcc.progress import Stages
from mmwcc.utils import (
    LaunchError,
    build_model,
    calibration_batches,
    load_config,
    load_trained,
    model_config,
    one_line_errors,
    quiet,
)


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
        '--maps',
        action='store_true',
        help='give scales to the maps between layers, and convert convolutions of every geometry',
    )
    parser.add_argument(
        '--images',
        type=int,
        default=16,
        metavar='N',
        help='number of training images that teach the scales of --maps; 16 by default',
    )
    parser.add_argument(
        '--input-shape',
        type=int,
        nargs=2,
        default=(128, 128),
        metavar=('H', 'W'),
        help='size of the image of zeros that shows which maps there are, and how long what stays '
        'float takes; 128 128 by default',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='change the config, as in training'
    )
    args = parser.parse_args(argv)
    if not args.out.endswith('.pth'):
        parser.error(f'OUT must end in .pth, got {args.out}')
    if args.images < 1:
        parser.error(f'--images must be at least 1, got {args.images}')
    return args


TRAINING_HEADS = ('auxiliary_head',)
"""Attributes of models, and keys of their configs, that prediction does not use."""


class Maps(NamedTuple):
    """How the maps between layers get their scales.

    Attributes:
        images: Number of training images that teach the scales.
        input_shape: Height and width of the image of zeros that shows which maps there are.
    """

    images: int
    input_shape: tuple[int, int]

    def add(self, model: nn.Module, config: Config) -> None:
        """Give a model scales of maps, and learn them from images of its config.

        Raises:
            LaunchError: If the config has no data.
            ValueError: If the model has scales already, or no layer that reads maps, or it cannot
                run on such an image.
        """
        batches = calibration_batches(config, self.images)
        add_map_scales(model, self.input_shape)
        print(f'maps: {calibrate(model, batches, again=False)}')


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


def drop_training_heads(model: nn.Module, config: Config) -> Config:
    """Take off what only training uses, because integer models cannot be trained.

    Returns:
        A copy of the config without these heads.
    """
    config = Config(config.to_dict(), filename=config.filename)
    level = config.model
    while isinstance(level, dict):  # a factory may hold the config of another one
        level.update({head: None for head in TRAINING_HEADS if head in level})
        level = level.get('task_type')
    for head in TRAINING_HEADS:
        if getattr(model, head, None) is not None:
            setattr(model, head, None)
    return config


def convert(
    config: Config, checkpoint: str, out: Path, maps: Maps | None = None
) -> tuple[nn.Module, CompressionReport]:
    """Build the model of a config, load a checkpoint, convert and write both.

    Args:
        config: The config the checkpoint was trained with.
        checkpoint: Path of the checkpoint.
        out: Path of the checkpoint to write, ending in .pth.
        maps: How the maps between layers get scales. Defaults to None: they get none here, but may
            have them from the training.

    Returns:
        The converted model and the report.

    Raises:
        LaunchError: If config has no model, or one that is integer already, or the checkpoint does
            not fit it.
        ValueError: If the model has no layer to convert, or cannot get scales of maps, or its
            compression names layers of heads that only training uses.
        RuntimeError: If no quantizer has learned its clip, or a map has not learned its scale.
    """
    if (find_compression(model_config(config)) or {}).get('integer'):
        raise LaunchError(
            f'{config.filename} describes an integer model already. Give the config that the '
            'checkpoint was trained with.'
        )
    stages = Stages('to_integer', 3, verbose=True)
    stages.begin('load the checkpoint')
    model, loaded = load_trained(config, checkpoint)
    config = drop_training_heads(model, config)
    stages.begin('convert the layers')
    if maps is not None:
        maps.add(model, config)
    report = to_integer(model, verbose=False)
    unlearned = [layer.name for layer in report if layer.reason == UNLEARNED]
    config = integer_config(config, [re.escape(name) for name in unlearned])
    if maps is not None:
        settings: Any = find_compression(config.model)
        settings['maps'] = dict(input_shape=list(maps.input_shape))
    build_model(config)  # a rule that names a head that is gone is an error
    stages.begin('write the checkpoint')
    save_checkpoint(model, config, out, loaded.get('meta'))
    return model, report


def float_time(model: nn.Module, input_shape: tuple[int, int]) -> str:
    """Say which share of the time of a prediction each kind of operator takes in floats."""
    image = torch.zeros(1, 3, *input_shape).contiguous(memory_format=torch.channels_last)
    try:
        network = RawOutputs(model).eval().to(memory_format=torch.channels_last)
    except ValueError as error:  # a model that has no outputs without boxes
        return f'the time in floating point was not measured. {error}'
    shares = record(network, image).float_shares(image)
    kinds = ', '.join(f'{name} {share:.1%}' for name, share in shares.items() if share >= 0.001)
    size = 'x'.join(map(str, input_shape))
    return f'floating point takes {sum(shares.values()):.1%} of the time at {size}: {kinds or "-"}'


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
    maps = Maps(args.images, tuple(args.input_shape)) if args.maps else None
    with one_line_errors('to_integer', ValueError, RuntimeError), quiet():
        config = load_config(args.config, args.cfg_options)
        model, report = convert(config, args.checkpoint, out, maps)
    print(f'{type(model).__name__} of {args.config} in integers')
    print(report)
    if maps is not None:
        print(float_time(model, maps.input_shape))
    print(
        f'weights and buffers: {weight_bytes(args.checkpoint):,} bytes before, '
        f'{weight_bytes(out):,} now'
    )
    print(f'wrote {out} and {out.with_suffix(".py")}')


if __name__ == '__main__':
    main()
