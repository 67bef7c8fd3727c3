"""Export a dense, quantized or wavelet compressed model to ONNX, and check the result.

    python tools/deployment/export_onnx.py CONFIG CHECKPOINT --shape 512 1024 --out model.onnx

The graph takes a normalized image. It returns the logits of a segmentor or the raw outputs of a
one-stage detector. The file is kept only if the runtime that it is written for returns the same
outputs as the model; see docs/deployment.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, DictAction
from torch import Tensor, nn

from mmwcc.deployment import EXPORTERS, SELECTIONS, TARGETS, ExportError, export_onnx
from mmwcc.maps import add_map_scales
from mmwcc.post_training import calibrate
from mmwcc.utils import calibration_batches, load_config, load_trained, one_line_errors, quiet


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description='Export a model to ONNX and check what was written'
    )
    parser.add_argument('config', help='config file that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='checkpoint of the trained model, dense or compressed')
    parser.add_argument(
        '--out', metavar='OUT.onnx', help='file to write; by default beside the checkpoint'
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        default=[512, 1024],
        metavar=('H', 'W'),
        help='height and width of the image; 512 1024 by default',
    )
    parser.add_argument('--dynamic', action='store_true', help='leave height and width open')
    parser.add_argument(
        '--exporter',
        choices=EXPORTERS,
        default='auto',
        help="exporter of torch; 'auto' takes dynamo's, and the other one where that fails",
    )
    parser.add_argument(
        '--opset', type=int, default=18, help="version of ONNX's operators; 18 by default"
    )
    parser.add_argument(
        '--selection',
        choices=SELECTIONS,
        default='topk',
        help='keep the k largest positions, or all '
        'above a threshold from calibration images, without TopK and Scatter',
    )
    parser.add_argument(
        '--calibration-images',
        type=int,
        default=32,
        metavar='N',
        help='training images for --selection threshold and for --maps; 32 by default',
    )
    parser.add_argument(
        '--target',
        choices=TARGETS,
        default='onnxruntime',
        help='runtime that will run the graph. OpenVINO verifies graphs for OpenVINO, ONNX Runtime '
        'all others; graphs for tensorrt are also checked against its rules. onnxruntime by '
        'default',
    )
    parser.add_argument(
        '--maps',
        action='store_true',
        help='give scales to the maps between quantized layers, and learn them from training '
        'images, for a model that was trained without; runtimes then compute whole networks in '
        'integers',
    )
    parser.add_argument(
        '--no-qdq', action='store_true', help='write all quantizers as Clip and Round'
    )
    parser.add_argument('--argmax', action='store_true', help='return the class of each pixel')
    parser.add_argument(
        '--repeats',
        type=int,
        default=5,
        help='runs of which the median latency is printed; 5 by default',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='change the config, as in training'
    )
    args = parser.parse_args(argv)
    args.out = args.out or str(Path(args.checkpoint).with_suffix('.onnx'))
    if not args.out.endswith('.onnx'):
        parser.error(f'--out must end in .onnx, got {args.out}')
    for name in ('calibration_images', 'repeats'):
        if getattr(args, name) < 1:
            parser.error(
                f'--{name.replace("_", "-")} must be at least 1, got {getattr(args, name)}'
            )
    return args


def calibration_images(config: Config, model: nn.Module, number: int) -> Iterator[Tensor]:
    """Yield training images one at a time, processed as in testing, and normalized."""
    batches = calibration_batches(config, number, batch_size=1, progress='reading images')
    for batch in batches:
        yield model.data_preprocessor(batch, False)['inputs']


def add_maps(model: nn.Module, config: Config, args: argparse.Namespace) -> None:
    """Give a model scales of maps, and learn them from training images."""
    batches = calibration_batches(config, args.calibration_images, progress='reading images')
    add_map_scales(model, tuple(args.shape), round_sums=TARGETS[args.target].round_sums)
    print(f'maps: {calibrate(model, batches, again=False)}')


def main(argv: list[str] | None = None) -> None:
    """Export, check and print the findings."""
    args = parse_args(argv)
    with (
        one_line_errors('export_onnx', ExportError, ValueError, RuntimeError, ModuleNotFoundError),
        quiet(),
    ):
        config = load_config(args.config, args.cfg_options)
        model = load_trained(config, args.checkpoint)[0]
        if args.maps:
            add_maps(model, config, args)
        images = ()
        if args.selection == 'threshold':
            images = list(calibration_images(config, model, args.calibration_images))
        report = export_onnx(
            model,
            args.out,
            tuple(args.shape),
            dynamic=args.dynamic,
            exporter=args.exporter,
            opset=args.opset,
            selection=args.selection,
            calibration=images,
            qdq=not args.no_qdq,
            argmax=args.argmax,
            repeats=args.repeats,
            verbose=True,
            target=args.target,
        )
    print(report)


if __name__ == '__main__':
    main()
