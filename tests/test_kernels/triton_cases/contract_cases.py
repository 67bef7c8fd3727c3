"""The contract of every operator with torch."""

import torch
from torch.library import opcheck

from .common import DEVICE, randn, random_slot


def test_opcheck():
    x = randn(2, 3, 8, 9).requires_grad_()
    slot, k = random_slot(2, 8, 9, 2, 20)
    rows, step, ops = randn(2, k, 3).requires_grad_(), torch.ones(1, device=DEVICE), torch.ops.mmwcc
    bias, weight = randn(3).requires_grad_(), randn(3, 1, 3, 3).requires_grad_()
    opcheck(ops.haar_norms.default, (x.detach(), 2))
    opcheck(ops.haar_pack.default, (x, slot, k, 2))
    opcheck(ops.haar_pack_int8.default, (x.detach(), slot, k, 2, step, -127, 127))
    opcheck(ops.haar_shrink.default, (x, k, 2))
    opcheck(ops.haar_shrink_int8.default, (x.detach(), k, 2, step, -127, 127))
    opcheck(ops.haar_unpack.default, (rows, slot, bias, 8, 9, 2, True, x, -1.0, 1.0))
    opcheck(ops.select.default, (torch.rand(2, 50).to(DEVICE), 7))
    opcheck(ops.depthwise_haar.default, (x, weight, bias, 1, 2, 0.0, 6.0))
    coefficients = randn(2, slot.shape[1], 3).requires_grad_()
    opcheck(ops.gather_rows.default, (coefficients, slot, k))
    opcheck(ops.gather_rows_int8.default, (coefficients.detach(), slot, k, step, -127, 127))
    clip, signed = torch.ones(1, device=DEVICE).requires_grad_(), torch.tensor(True, device=DEVICE)
    for values in (x, x.detach()[:, :, ::2].requires_grad_()):
        opcheck(ops.fake_quant.default, (values, clip, signed, 8, False, True, 1.0))
    opcheck(ops.quantize_int8.default, (x.detach(), step, 0, 255))
    int8 = torch.randint(-128, 128, (2, 5, 16), dtype=torch.int8).to(DEVICE)
    more = (randn(2, 5), torch.ones(4, dtype=torch.int32, device=DEVICE), torch.bfloat16)
    for rest in ((), more):
        opcheck(ops.int8_linear.default, (int8, int8[0, :4], randn(4), randn(4), *rest))
