"""The product of rows with a kernel, whose prepared form is kept while its values stay the same."""

import importlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

from mmwcc import kernels
from mmwcc.functional import multiply_rows, quantized_linear
from mmwcc.layers import WaveletCompressedConv2d

PRODUCTS = {'mm', 'bmm', 'addmm', 'convolution'}
SHAPES = [(1, 7, 3, 5), (2, 64, 33, 16), (1, 1, 1, 1), (3, 100, 200, 130), (1, 300, 960, 160)]


def expected(rows, weight):
    return rows.double() @ weight.double().flatten(1).t()


@pytest.fixture
def cpu(monkeypatch):
    pytest.importorskip('numba')
    module = importlib.import_module('mmwcc.kernels.cpu.product')
    if not module._has_layout():
        pytest.skip('torch has no oneDNN here')
    monkeypatch.setattr(module, '_prepared', type(module._prepared)())
    return module


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('shape', SHAPES)
def test_equals_the_product(shape, dtype):
    batch, k, channels, outputs = shape
    rows, weight = (
        torch.randn(batch, k, channels, dtype=dtype),
        torch.randn(outputs, channels, 1, 1, dtype=dtype),
    )
    bound = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 1e-2}[dtype]
    for _ in range(2):
        y = kernels.multiply_rows(rows, weight)
        right = expected(rows, weight)
        assert y.dtype == dtype and y.shape == right.shape
        assert (y - right).norm() <= bound * right.norm()


@pytest.mark.parametrize(
    'view', [lambda x: x[:, ::2], lambda x: x.transpose(1, 2).contiguous().transpose(1, 2)]
)
def test_takes_rows_and_kernels_of_any_strides(view):
    rows, weight = view(torch.randn(2, 40, 24)), torch.randn(24, 18, 1, 1).transpose(0, 1)
    for kernel in (weight, weight.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(
            kernels.multiply_rows(rows, kernel).double(),
            expected(rows, kernel),
            rtol=1e-5,
            atol=1e-5,
        )
    assert kernels.multiply_rows(rows[:0], weight).shape == (0, rows.shape[1], 18)


def _negate(weight):
    weight.data.mul_(-1)


def _change_one(weight):
    weight.data.view(-1)[-1] += 1e-6


def _swap_two(weight):
    weight.data.copy_(weight.data.roll(1, 0))


def _from_numpy(weight):
    weight.detach().numpy()[...] *= 2


@pytest.mark.parametrize('change', [_negate, _change_one, _swap_two, _from_numpy])
@pytest.mark.parametrize('shape', [(128, 128), (5, 7), (160, 960)])
def test_a_changed_kernel_is_prepared_anew(cpu, shape, change):
    """Also where its tensor keeps no trace of the change, as of an average that is swapped in."""
    rows, weight = torch.randn(1, 32, shape[1]), torch.nn.Parameter(torch.randn(*shape, 1, 1))
    version = weight._version
    kernels.multiply_rows(rows, weight)
    ((before, _),) = cpu._prepared.values()
    kernels.multiply_rows(rows, weight)
    assert len(cpu._prepared) == 1
    change(weight)
    assert weight._version == version
    torch.testing.assert_close(
        kernels.multiply_rows(rows, weight).double(), expected(rows, weight), rtol=1e-5, atol=1e-4
    )
    ((after, _),) = cpu._prepared.values()
    assert after != before


def test_a_kernel_whose_memory_is_freed_and_filled_anew_is_prepared_anew(cpu):
    """As FSDP does between layers, at the same address or at another."""
    rows, weight = torch.randn(1, 32, 40), torch.nn.Parameter(torch.randn(20, 40, 1, 1))
    storage = weight.untyped_storage()
    size = storage.size()
    for _ in range(3):
        kernels.multiply_rows(rows, weight)
        storage.resize_(0)
        with pytest.raises(RuntimeError, match='not allocated|storage of size 0'):
            kernels.multiply_rows(rows, weight)
        storage.resize_(size)
        weight.data.copy_(torch.randn(20, 40, 1, 1))
        torch.testing.assert_close(
            kernels.multiply_rows(rows, weight).double(),
            expected(rows, weight),
            rtol=1e-5,
            atol=1e-5,
        )


def test_an_unchanged_kernel_is_prepared_once(cpu):
    rows, weight = torch.randn(1, 32, 40), torch.randn(20, 40, 1, 1)
    kernels.multiply_rows(rows, weight)
    ((_, first),) = cpu._prepared.values()
    kernels.multiply_rows(torch.randn(2, 500, 40), weight)
    ((_, second),) = cpu._prepared.values()
    assert first is second


def test_checksums_do_not_depend_on_the_number_of_threads(cpu):
    weight, counts = torch.randn(300, 200), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        counts.append(cpu._checksums(weight))
    assert counts[0] == counts[1] == counts[2]


def test_kernels_used_longest_ago_are_forgotten(cpu, monkeypatch):
    monkeypatch.setattr(cpu, '_KEPT', 4 * 20 * 40 * 3)
    rows, weights = torch.randn(1, 32, 40), [torch.randn(20, 40, 1, 1) for _ in range(5)]
    for n in (0, 1, 2, 0, 3, 4):
        kernels.multiply_rows(rows, weights[n])
    assert [address for address, *_ in cpu._prepared] == [weights[n].data_ptr() for n in (0, 3, 4)]
    monkeypatch.setattr(cpu, '_KEPT', 1)
    y = kernels.multiply_rows(rows, weights[1])
    assert len(cpu._prepared) == 1
    torch.testing.assert_close(y.double(), expected(rows, weights[1]), rtol=1e-5, atol=1e-5)


def test_without_onednn_torch_multiplies(cpu, monkeypatch):
    monkeypatch.setattr(cpu, '_has_layout', lambda: False)
    rows, weight = torch.randn(1, 32, 40), torch.randn(20, 40, 1, 1)
    torch.testing.assert_close(
        kernels.multiply_rows(rows, weight).double(), expected(rows, weight), rtol=1e-5, atol=1e-5
    )
    assert not cpu._prepared


def test_only_inference_keeps_kernels(cpu):
    layer, x = WaveletCompressedConv2d(16, 24, keep_ratio=0.5), torch.randn(1, 16, 16, 16)
    trained = layer(x)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        assert multiply_rows(torch.randn(1, 8, 16), layer.weight).dtype == torch.bfloat16
    assert not cpu._prepared
    with torch.no_grad():
        torch.testing.assert_close(layer(x), trained)
    assert len(cpu._prepared) == 1


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_opcheck(dtype):
    rows, weight = torch.randn(2, 6, 5, dtype=dtype), torch.randn(4, 5, 1, 1, dtype=dtype)
    opcheck(torch.ops.mmwcc.multiply_rows.default, (rows, weight))
    opcheck(torch.ops.mmwcc.multiply_rows.default, (rows.requires_grad_(), weight.requires_grad_()))


def test_gradcheck():
    rows = torch.randn(2, 6, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 5, 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(kernels.multiply_rows, (rows, weight))
    assert torch.autograd.gradgradcheck(kernels.multiply_rows, (rows, weight))


class Calls(TorchDispatchMode):
    """The names of the operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ('device', 'dtype', 'name'),
    [
        ('cpu', torch.float32, 'convolution'),
        ('cuda', torch.float32, 'convolution'),
        ('cuda', torch.bfloat16, 'mm'),
        ('cuda', torch.float64, 'mm'),
    ],
)
def test_float32_is_multiplied_as_a_convolution(device, dtype, name):
    """On a GPU the flag of convolutions allows tf32 then, as in the dense layer, and no other."""
    for product in (kernels.plain_product, quantized_linear):
        with FakeTensorMode(), Calls() as calls:
            rows = torch.empty(2, 9, 8, device=device, dtype=dtype)
            y = product(rows, torch.empty(6, 8, 1, 1, device=device, dtype=dtype))
        assert y.shape == (2, 9, 6) and y.device.type == device
        assert calls.names & PRODUCTS == {name}
