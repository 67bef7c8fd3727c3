"""The shipped ladders."""

from pathlib import Path

import pytest
from fabricated import CONFIGS
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.ladder import read_ladder
from mmwcc.ladder.point_config import build_config, fingerprint, settings_of

LADDERS = CONFIGS / 'wcc' / 'ladders'
REQUIRED = {
    'dense',
    'quant-w8a8',
    'quant-w8a4',
    'quant-w8a8-lsq',
    'quant-w8a4-lsq',
    'wcc-w8a8-k50',
    'wcc-w8a8-k25',
    'wcc-w8a8-k12_5',
    'wcc-w8a6-k37_5',
    'allocated-k25',
    'allocated-all-k25',
}


@pytest.mark.parametrize(('name', 'iterations'), [('camvid', 400), ('camvid_short', 120)])
def test_points_differ_and_can_be_built(name, iterations):
    ladder = read_ladder(LADDERS / f'{name}.py')
    assert {step.point.name for step in ladder.steps(only=['required'])} == REQUIRED
    settings = {}
    for step in ladder.steps():
        config = build_config(ladder, step, Path('work'), 'start.pth', 'dense.pth')
        settings[step.name] = fingerprint(
            settings_of(config, step.point, dict(start=step.point.start or 'dense'))
        )
        assert config.train_cfg.max_iters == config.param_scheduler[-1].end == iterations
        assert config.default_hooks.compression_check.type == 'mmwcc.CompressionCheckHook'
        if 'compression' in config.model:
            small = nn.Sequential(
                nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 2, 1)
            )
            report = compress_model(small, {**config.model.compression, 'rules': []}, verbose=False)
            assert said(step.point.name) in (
                (layer.weight_bits, layer.act_bits, layer.keep_ratio) for layer in report
            )
    assert len(set(settings.values())) == len(settings)


def said(name: str) -> tuple[int, int, float | None]:
    """Return what the name of a point says of its bits and keep ratio; an allocation starts from
    8/8 bits.
    """
    if name.startswith('allocated'):
        return 8, 8, None
    bits, *rest = name.split('-')[1:]
    keep = rest[0].removeprefix('k').replace('_', '.') if name.startswith('wcc') else None
    thirds = {'66.7': 2 / 3, '33.3': 1 / 3, '16.7': 1 / 6}
    return int(bits[1]), int(bits[3:]), keep and (thirds.get(keep) or float(keep) / 100)
