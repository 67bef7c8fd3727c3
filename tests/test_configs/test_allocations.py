"""The allocations of results/allocation.md, data that configs inherit: what they say, and where
they are found.
"""

import hashlib
import json
from pathlib import Path

import pytest
from mmengine.config import Config

import mmwcc  # noqa: F401  (adds the address mmwcc:: to mmengine)

ROOT = Path(__file__).resolve().parents[2]
STEM = 'deeplabv3plus_mobilenetv2-os16'
# Of the compression dictionaries that the table was measured with, as written by `fingerprint`.
MEASURED = {
    'k12_5-alloc': '9b8915dfaeca8fe5',
    'k12_5-allocall': 'd64d06eba2c140e9',
    'k25-alloc': '5b6c5ca4d1ec7c28',
    'k25-allocall': 'f1ac9b690d3c8eae',
}


def name_of(step: str) -> str:
    return f'{STEM}_wcc-w8a8-{step}_400i_camvid-256x256.py'


def fingerprint(config: Config) -> str:
    return hashlib.sha256(
        json.dumps(config.model.compression.to_dict(), sort_keys=True).encode()
    ).hexdigest()[:16]


@pytest.mark.parametrize('step', MEASURED)
@pytest.mark.parametrize('place', [f'{ROOT}/configs/', 'mmwcc::'])
def test_rules_are_those_that_were_measured(step, place, tmp_path):
    (tmp_path / 'mine.py').write_text(f"_base_ = '{place}wcc/{name_of(step)}'\n")
    config = Config.fromfile(tmp_path / 'mine.py')
    assert len(config.model.compression.rules) == 64
    assert fingerprint(config) == MEASURED[step]


@pytest.mark.parametrize('step', MEASURED)
def test_a_dumped_config_needs_no_other_file(step, tmp_path):
    Config.fromfile(ROOT / 'configs' / 'wcc' / name_of(step)).dump(tmp_path / 'config.py')
    assert fingerprint(Config.fromfile(tmp_path / 'config.py')) == MEASURED[step]


def test_no_config_is_generated_code():
    """What a tool writes is data; a config in Python is short enough to be read."""
    for path in (ROOT / 'configs').rglob('*.py'):
        assert len(path.read_text(encoding='utf-8').splitlines()) <= 120, path
