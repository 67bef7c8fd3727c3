"""The transform of the reference: perfect reconstruction, transposes, and maps of any size."""

import numpy as np
import pytest

from mmwcc.testing import WAVELETS, Transform, matrices


@pytest.mark.parametrize('wavelet', WAVELETS)
@pytest.mark.parametrize('size, levels', [((8, 8), 1), ((4, 8), 2), ((16, 8), 3), ((16, 16), 4)])
def test_synthesis_inverts_analysis_and_only_orthogonal_wavelets_transpose(wavelet, size, levels):
    analysis, synthesis = matrices(*size, levels, wavelet)
    np.testing.assert_allclose(synthesis @ analysis, np.eye(size[0] * size[1]), atol=1e-9)
    is_transpose = np.allclose(synthesis, analysis.T, atol=1e-9)
    assert is_transpose == (not wavelet.startswith('bior'))


@pytest.mark.parametrize('wavelet', WAVELETS)
def test_large_maps_go_through_the_same_operators(wavelet):
    small = Transform(13, 16, 2, wavelet)
    large = Transform(13, 16, 2, wavelet, largest_matrix=0)
    rng = np.random.default_rng(0)
    maps, coefficients = rng.standard_normal((3, 13, 16)), rng.standard_normal((3, 256))
    for operator, argument in [
        ('analysis', maps),
        ('synthesis_transposed', maps),
        ('synthesis', coefficients),
        ('analysis_transposed', coefficients),
    ]:
        np.testing.assert_allclose(
            getattr(small, operator)(argument), getattr(large, operator)(argument), atol=1e-11
        )
