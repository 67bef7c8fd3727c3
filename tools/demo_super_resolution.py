"""Enlarge an image by trained networks, and compare a detail of it.

The detail is shown next to bicubic interpolation and the original.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mmwcc.datasets import LoadImagePair, PackImagePair
from mmwcc.evaluation.image_quality import luma, psnr
from mmwcc.functional import resize_bicubic
from mmwcc.reports import check_crop, plot_enlarged_crops
from mmwcc.utils import (
    LaunchError,
    load_config,
    load_trained,
    one_line_errors,
    register_all_modules,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Shrink an image, enlarge it again, and draw a detail of the result.'
    )
    parser.add_argument('image', help='the original')
    parser.add_argument(
        '--model',
        nargs=2,
        action='append',
        required=True,
        metavar=('CONFIG', 'CHECKPOINT'),
        help='a trained network; repeat it to compare several of the same enlargement',
    )
    parser.add_argument(
        '--name',
        action='append',
        default=[],
        help='caption of the network in the same place; the name of its config by default',
    )
    parser.add_argument(
        '--crop',
        nargs=4,
        type=int,
        metavar=('LEFT', 'TOP', 'WIDTH', 'HEIGHT'),
        help='the detail in pixels of the original; the middle by default',
    )
    parser.add_argument(
        '--self-ensemble', action='store_true', help='average over the eight flips and rotations'
    )
    parser.add_argument(
        '--out-file', default='super_resolution.png', help='where to write the image'
    )
    return parser.parse_args()


def load_models(args: argparse.Namespace) -> dict[str, torch.nn.Module]:
    """Return the networks by caption."""
    if len(args.name) > len(args.model):
        raise LaunchError(
            f'--name was given {len(args.name)} times for {len(args.model)} networks.'
        )
    models = {}
    for place, (config, checkpoint) in enumerate(args.model):
        cfg = load_config(config)
        model, _ = load_trained(cfg, checkpoint)
        if not hasattr(getattr(model, 'generator', None), 'scale'):
            raise LaunchError(
                f'{config} must be of a super-resolution network, got {type(model).__name__}.'
            )
        model.self_ensemble = args.self_ensemble
        models[args.name[place] if place < len(args.name) else Path(config).stem] = model
    if (
        len(models) < len(args.model)
        or len({model.generator.scale for model in models.values()}) > 1
    ):
        raise LaunchError(
            'The networks must have different captions and the same scale. Use --name.'
        )
    return models


@torch.no_grad()
def enlarge(image: str, models: dict[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    """Return the original and its enlargements by caption, pixels (3, H, W) uint8."""
    scale = next(iter(models.values())).generator.scale
    try:
        pair = PackImagePair()(LoadImagePair(scale)(dict(gt_path=image)))
    except (FileNotFoundError, ValueError) as error:
        raise LaunchError(f'The image cannot be used: {error}') from error
    original = pair['data_samples'].gt_img
    images = dict(original=original, bicubic=resize_bicubic(pair['inputs'], original.shape[1:]))
    for name, model in models.items():
        (sample,) = model.test_step(
            dict(inputs=[pair['inputs']], data_samples=[pair['data_samples']])
        )
        images[name] = sample.pred_img
    return images


def main() -> None:
    args = parse_args()
    register_all_modules()
    images = enlarge(args.image, load_models(args))
    original = images.pop('original')
    height, width = original.shape[1:]
    crop = args.crop or (3 * width // 8, 3 * height // 8, width // 4, height // 4)
    try:
        check_crop(crop, (height, width))
    except ValueError as error:
        raise LaunchError(f'--crop: {error}') from error
    panels = {}
    for name, image in images.items():
        caption = f'{name}\n{psnr(luma(image.double()), luma(original.double())):.2f} dB'
        panels[caption] = image.permute(1, 2, 0).numpy()
        print(caption.replace('\n', ': ') + ' (PSNR of Y, whole image)')
    pixels = original.permute(1, 2, 0).numpy()
    plot_enlarged_crops(pixels, {**panels, 'original\n': pixels}, crop).savefig(args.out_file)
    print(f'wrote {args.out_file}')


if __name__ == '__main__':
    with one_line_errors('demo_super_resolution.py'):
        main()
