"""How many kernels a layer launches: small maps are bound by launches, not by their arithmetic."""

import contextlib
from collections import Counter

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mmwcc.layers import WaveletCompressedConv2d

from .common import DEVICE, INTERPRETED, LAUNCH, LAYOUTS, randn

if INTERPRETED:
    from triton.runtime.interpreter import GridExecutor as Launcher

    LAUNCH_NAME = '__call__'
else:
    from triton.runtime.jit import JITFunction as Launcher

    LAUNCH_NAME = 'run'

FREE = {
    'alias',
    'as_strided',
    'contiguous',
    'detach',
    'empty',
    'empty_like',
    'empty_strided',
    'expand',
    'narrow',
    'new_empty',
    'permute',
    'reshape',
    'resize_',
    'result_type',
    'select',
    'slice',
    'squeeze',
    't',
    'to',
    'transpose',
    'unsqueeze',
    'view',
}
"""Operators of torch that launch nothing themselves: views, allocations, what calls another one."""

PRODUCTS = ('aten::conv2d', 'aten::convolution_backward')
"""Operators that count as one: what they call depends on the device."""


@pytest.fixture
def _poisoned_memory():
    """Fill nothing here: that would count as launches."""


@contextlib.contextmanager
def counted(monkeypatch):
    """Yield a counter of the kernels that are launched, of Triton and of torch."""
    counts, run = Counter(), getattr(Launcher, LAUNCH_NAME)

    def launch(kernel, *args, **options):
        counts[kernel.fn.__name__.strip('_').removesuffix('_kernel')] += 1
        with torch.profiler.record_function('inside of a kernel'):
            return run(kernel, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Launcher, LAUNCH_NAME, launch)
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            yield counts
    counts.update(name for event in profiled.events() if (name := _launched(event)))


def _launched(event) -> str:
    """Return the name of an operator of torch that launches and calls no other one, or ''."""
    outer = event.cpu_parent
    while outer is not None:
        if outer.name == 'inside of a kernel' or outer.name in PRODUCTS:
            return ''
        outer = outer.cpu_parent
    calls = [child for child in event.cpu_children if _is_work(child.name)]
    leaf = event.name in PRODUCTS or (_is_work(event.name) and not calls)
    return event.name.removeprefix('aten::') if leaf else ''


def _is_work(name: str) -> bool:
    return name.startswith('aten::') and name.removeprefix('aten::') not in FREE


SELECTIONS = {
    'small': (dict(one_block=2**20), dict(whole=1)),
    'large': (dict(one_block=0, one_program=0, many_images=64), dict(count=4, rank=1)),
}


@pytest.mark.parametrize('size', SELECTIONS)
def test_launches_of_a_layer(size, monkeypatch):
    sizes, selection = SELECTIONS[size]
    shipped = LAUNCH.read_configurations(LAUNCH.CONFIGS / 'cuda.json')
    layer = WaveletCompressedConv2d(16, 16, keep_ratio=0.25, bias=False).to(DEVICE)
    x = LAYOUTS['channels_last'](randn(2, 16, 16, 16)).requires_grad_()
    shipped['select']['float32'].update(sizes)
    with LAUNCH.forced(shipped):
        layer(x)  # what is kept from call to call
        with torch.inference_mode(), counted(monkeypatch) as inference:
            layer(x)
        with counted(monkeypatch) as forward:
            y = layer(x)
        gradient = torch.ones_like(y)
        with counted(monkeypatch) as backward:
            torch.autograd.grad(y, [x, layer.weight], gradient)
    assert inference == {'norms': 1, **selection, 'pack': 1, 'conv2d': 1, 'unpack': 1}
    assert forward == inference
    assert backward == {'pack': 1, 'convolution_backward': 1, 'unpack': 1}
