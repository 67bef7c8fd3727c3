"""Compare randomly configured WCC layers with the float64 reference of mmwcc.testing.

Both the output and the gradients are compared. Each case is a layer (channels, size, stride,
keep_ratio, levels, wavelet, selection, bias, quantizers), a memory layout, a dtype and some data.
A failing case is shrunk to a small one and printed; the exit status is then 1.

Usage: python tools/fuzz.py --cases 10000 --seed 0
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch
from fuzz_cases import CASES, DATA, LAYOUTS, Case
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import seed as with_seed

from mmwcc.functional import pack
from mmwcc.layers import WaveletCompressedConv2d
from mmwcc.testing import Compression, Measured, Reference, reference_wcc, to_numpy

# Errors are relative to the sum of the magnitudes of the terms that make up a result.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def check(case: Case) -> None:
    """Run one case and assert that output, gradients, dtype and layout are right."""
    torch.manual_seed(case.seed)
    tolerance = TOLERANCE[case.dtype]
    compression = dict(
        keep_ratio=case.keep_ratio,
        levels=case.levels,
        wavelet=case.wavelet,
        selection=case.selection,
    )
    layer = WaveletCompressedConv2d(
        case.in_channels,
        case.out_channels,
        stride=case.stride,
        bias=case.bias,
        **compression,
        **(case.quantizers.configs() if case.quantizers else {}),
    )
    layer = layer.to(case.dtype)
    torch.nn.init.normal_(layer.weight)
    if case.quantizers:
        case.quantizers.tell_channels_apart(layer)
    x = torch.randn(case.batch, case.in_channels, case.height, case.width, dtype=case.dtype)
    x = LAYOUTS[case.layout](DATA[case.data](x)).requires_grad_()
    y = layer(x)
    grad = torch.randn_like(y)
    y.backward(grad)

    with torch.no_grad():
        rows, slot = pack(x[:, :, :: case.stride, :: case.stride], **compression)
        rounded, grids = {}, {}
        if case.quantizers:
            rounded = dict(rows=layer.act_quant(rows), weight=layer.weight_quant(layer.weight))
            grids = case.quantizers.grids(layer, rows[0].numel())
    expected = reference_wcc(
        x,
        layer.weight,
        layer.bias,
        Compression(**compression, stride=case.stride),
        measured=Measured(slot >= 0, tolerance=tolerance, **rounded),
        **grids,
    )
    if case.quantizers:
        # Exactly at the clip, both gradients are correct.
        assume(
            expected.act.is_clear_of_clips(tolerance) and expected.wgt.is_clear_of_clips(tolerance)
        )
    gradients = expected.gradients(to_numpy(grad))
    scales = magnitudes(expected, x, to_numpy(grad), layer.bias)

    assert y.dtype == case.dtype, f'y has dtype {y.dtype}'
    if (
        case.layout == 'channels_last' and not x.is_contiguous()
    ):  # with one channel or pixel it is both
        assert y.is_contiguous(memory_format=torch.channels_last), f'y has strides {y.stride()}'
    assert_close('y', y, expected.y, tolerance * scales['y'])
    assert_close('gradient of x', x.grad, gradients['x'], tolerance * scales['x'])
    for name, parameter in layer.named_parameters():
        role = name.replace('_quant.clip_alpha', '_clip')
        assert_close(
            f'gradient of {name}',
            parameter.grad,
            np.atleast_1d(gradients[role]),
            tolerance * scales[role],
        )


def magnitudes(
    expected: Reference, x: torch.Tensor, grad: np.ndarray, bias: torch.Tensor | None
) -> dict[str, float]:
    """Return the largest sum of magnitudes behind one element, for the output and each gradient.

    A coefficient can be a small difference of large values. It therefore counts with the largest
    value of its map, too.
    """
    keep = expected.keep[:, None]
    hat = (np.abs(expected.transform.synthesis_transposed(grad)) + np.abs(grad).max()) * keep
    kept = (np.abs(expected.kept_quantized) + x.abs().max().item()) * keep
    weight, tiny = np.abs(expected.weight), 1e-30
    grad_weight, grad_kept = (
        np.einsum('bon,bcn->oc', hat, kept),
        np.einsum('oc,bon->bcn', weight, hat),
    )
    factor = expected.wgt.factor if expected.wgt else 1.0
    scales = {
        'y': np.einsum('oc,bcn->bon', weight, kept).max()
        + (0 if bias is None else bias.abs().max().item())
        + tiny,
        'x': grad_kept.max() + tiny,
        'weight': grad_weight.max() * max(1, factor, 1 / factor) + tiny,
        'bias': np.abs(grad).sum((0, 2, 3)).max() + tiny,
    }
    for role, quantized, gradient in (
        ('weight', expected.wgt, grad_weight),
        ('act', expected.act, grad_kept),
    ):
        if quantized is not None:
            scales[f'{role}_clip'] = (
                gradient.sum()
                * quantized.largest
                * quantized.grid.clip_scale
                * max(1, quantized.factor)
                + tiny
            )
    return scales


def assert_close(name: str, actual: torch.Tensor, expected: np.ndarray, allowed: float) -> None:
    assert actual.shape == expected.shape, (
        f'{name} has shape {tuple(actual.shape)}, expected {expected.shape}'
    )
    error = np.abs(to_numpy(actual) - expected).max()
    assert error <= allowed, (
        f'{name} is wrong by {error:.3g}, allowed are {allowed:.3g}'
    )  # also if it is NaN


def fuzz(
    cases: int, seed: int, report=lambda done: None
) -> tuple[int, Case | None, BaseException | None]:
    """Check random cases until one fails.

    Args:
        cases: How many.
        seed: Seed of the whole run.
        report: Called with the number of cases done after each of them.

    Returns:
        How many cases passed, and the shrunk failing case with its error, or None and None.
    """
    passed, failed = 0, None

    @with_seed(seed)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(CASES)
    def run(case: Case) -> None:
        nonlocal passed, failed
        try:
            check(case)
        except Exception as error:
            if type(error).__module__.startswith('hypothesis'):
                raise
            failed = case  # the last one to fail is the smallest
            raise
        if failed is None:
            passed += 1
            report(passed)

    try:
        run()
    except Exception as error:
        return passed, failed, error
    return passed, None, None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--cases', type=int, default=1000, help='number of cases (default: 1000)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the run (default: 0)')
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.time()

    def report(done: int) -> None:
        if done % 500 == 0:
            print(f'{done} cases, {done / (time.time() - start):.0f} a second', flush=True)

    passed, failed, error = fuzz(args.cases, args.seed, report)
    if error is None:
        print(f'{passed} cases, 0 failures')
        return 0
    print(
        f'{passed} cases passed, then a failure. Shrunk '
        f'configuration:\n{failed}\n{type(error).__name__}: {error}'
    )
    return 1


if __name__ == '__main__':
    sys.exit(main())
