"""The Haar transform of channels: golden values, its matrix, inverse, gradients, layouts and
dtypes.
"""

import pytest
import torch

from mmwcc.functional import dfwt, inverse_dfwt

CASES = [(2, 1), (8, 1), (8, 3), (12, 2), (24, 3), (32, 5)]


def matrix(channels: int, kappa: int) -> torch.Tensor:
    """Build the transform from its definition, one row an output channel."""
    rows, running = [], torch.eye(channels, dtype=torch.float64)
    for _ in range(kappa):
        half = len(running) // 2
        rows += [running[j] - running[j + half] for j in range(half)]
        running = torch.stack([running[j] + running[j + half] for j in range(half)])
    return torch.stack([*rows, *running])


def test_golden_values():
    pieces = dfwt(torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]]), kappa=3)
    assert [piece.tolist() for piece in pieces] == [
        [[-15.0, -30.0, -60.0, -120.0]],
        [[-51.0, -102.0]],
        [[-85.0]],
        [[255.0]],
    ]


@pytest.mark.parametrize('channels, kappa', CASES)
@pytest.mark.parametrize('orthonormal', [False, True])
def test_equals_its_matrix(channels, kappa, orthonormal):
    x = torch.randn(2, channels, 3, 5, dtype=torch.float64)
    h = matrix(channels, kappa)
    assert torch.equal(h @ h.T, torch.diag((h * h).sum(1)))
    expected = torch.einsum(
        'oc,bchw->bohw', h / h.norm(dim=1, keepdim=True) if orthonormal else h, x
    )
    torch.testing.assert_close(
        torch.cat(dfwt(x, kappa, orthonormal), 1), expected, rtol=1e-14, atol=1e-14
    )


@pytest.mark.parametrize('channels, kappa', CASES)
@pytest.mark.parametrize('orthonormal', [False, True])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_inverse(channels, kappa, orthonormal, memory_format):
    x = torch.randn(2, channels, 3, 5, dtype=torch.float64).contiguous(memory_format=memory_format)
    y = inverse_dfwt(dfwt(x, kappa, orthonormal), orthonormal)
    torch.testing.assert_close(y, x, rtol=1e-14, atol=1e-14)
    assert channels == 2 or y.is_contiguous(
        memory_format=memory_format
    )  # pieces of one channel have no format


def test_orthonormal_keeps_the_norm():
    x = torch.randn(2, 16, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(
        sum(piece.square().sum() for piece in dfwt(x, 4, orthonormal=True)), x.square().sum()
    )


def test_no_step_is_the_identity():
    x = torch.randn(2, 5, 3, 3)
    assert dfwt(x, 0) == (x,)
    assert inverse_dfwt((x,)) is x


@pytest.mark.parametrize('orthonormal', [False, True])
def test_first_and_second_gradients(orthonormal):
    x = torch.randn(1, 8, 1, 2, dtype=torch.float64, requires_grad=True)
    pieces = tuple(piece.detach().requires_grad_() for piece in dfwt(x, 2, orthonormal))
    for function, inputs in (
        (lambda x: dfwt(x, 2, orthonormal), x),
        (lambda *pieces: inverse_dfwt(pieces, orthonormal), pieces),
    ):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_gradient_where_a_piece_is_not_used(memory_format):
    x = (
        torch.randn(2, 8, 3, 5, dtype=torch.float64)
        .contiguous(memory_format=memory_format)
        .requires_grad_()
    )
    dfwt(x, 3)[1].sum().backward()
    rows = matrix(8, 3)[4:6].sum(0)
    assert torch.equal(x.grad, rows.reshape(1, 8, 1, 1).expand_as(x))


@pytest.mark.parametrize(
    'cut',
    [
        lambda x: x[:, ::2],
        lambda x: x[:, :, 1:].transpose(2, 3),
        lambda x: x[:1].expand(3, -1, -1, -1),
    ],
)
def test_strided_inputs(cut):
    x = cut(torch.randn(2, 16, 4, 4, dtype=torch.float64)).requires_grad_()
    expected = torch.einsum('oc,bchw->bohw', matrix(x.shape[1], 2), x)
    grad = torch.randn_like(expected)
    y = torch.cat(dfwt(x, 2), 1)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, x, grad)[0] for value in (y, expected)))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    x = torch.randint(-8, 8, (1, 8, 2, 2)).to(dtype)  # sums of small whole numbers are exact
    pieces = dfwt(x, 3)
    assert {piece.dtype for piece in pieces} == {dtype}
    assert torch.equal(torch.cat(pieces, 1).double(), torch.cat(dfwt(x.double(), 3), 1))


def test_the_input_is_not_saved():
    x = torch.randn(1, 8, 4, 4, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor
    ):
        inverse_dfwt(dfwt(x, 3))
    assert not saved


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')  # of the check of the channels
def test_compiles_exports_and_traces_without_operators_of_its_own():
    class Both(torch.nn.Module):
        def forward(self, x):
            return inverse_dfwt(dfwt(x, 2, True), True) + torch.cat(dfwt(x, 3), 1)

    torch._dynamo.reset()
    x = torch.randn(2, 8, 3, 3, requires_grad=True)
    (expected,) = torch.autograd.grad(Both()(x).square().sum(), x)
    compiled = torch.compile(Both(), fullgraph=True, backend='aot_eager')(x)
    torch.testing.assert_close(torch.autograd.grad(compiled.square().sum(), x)[0], expected)
    exported = torch.export.export(Both(), (x.detach(),))
    torch.testing.assert_close(exported.module()(x), Both()(x))
    traced = torch.jit.trace(Both(), (x,))
    assert 'PythonOp' not in str(traced.graph) and '^' not in str(traced.graph)
    torch.testing.assert_close(traced(x), Both()(x))
    names = {str(node.target) for node in exported.graph.nodes if node.op == 'call_function'}
    assert not any('mmwcc' in name or 'autograd' in name for name in names), names
    assert any('aten.add' in name for name in names)


def test_channels_that_cannot_be_halved():
    with pytest.raises(
        ValueError, match=r'channels of x must be divisible by 2\*\*kappa=8, got 12. Lower kappa'
    ):
        dfwt(torch.randn(1, 12, 2, 2), 3)
