import pytest
import torch

from mmwcc.evaluation import ReconstructionPSNR
from mmwcc.models import WAE


def sample(decoded, low=(0.0, 2.0), high=(0.0, 1.0)):
    low, high = (torch.tensor(part).reshape(1, 1, 2) for part in (low, high))
    return dict(decoded_pixels=decoded, low=low, high=high)


def test_psnr_is_that_of_pixels_averaged_over_images():
    image = torch.full((3, 2, 2), 100, dtype=torch.uint8)
    metric = ReconstructionPSNR()
    # Errors of 25.5 and 2.55 grey levels are 20 and 40 dB; the second came padded by a column.
    metric.process(
        dict(inputs=[image, image]),
        [sample(torch.full((3, 2, 2), 125.5)), sample(torch.full((3, 2, 3), 102.55))],
    )
    results = metric.evaluate(2)
    assert results['reconstruction/psnr'] == pytest.approx(30, abs=1e-4)
    # Without their means, the parts have the energies 2 and 0.5.
    assert results['reconstruction/high_share'] == pytest.approx(0.2)


def test_of_an_auto_encoder():
    wae = WAE(data_preprocessor=dict(type='mmwcc.ClsDataPreprocessor')).eval()
    batch = dict(inputs=[torch.randint(0, 256, (3, 5, 6), dtype=torch.uint8)])
    with torch.no_grad():
        samples = wae(wae.data_preprocessor(dict(batch))['inputs'], mode='predict')
    metric = ReconstructionPSNR()
    metric.process(batch, [one.to_dict() for one in samples])
    error = (batch['inputs'][0] - samples[0].decoded.clamp(0, 255)).square().mean()
    assert metric.evaluate(1)['reconstruction/psnr'] == pytest.approx(
        float(10 * torch.log10(255**2 / error)), abs=1e-3
    )


def test_perfect_images_and_others():
    metric = ReconstructionPSNR()
    metric.process(
        dict(inputs=[torch.zeros(3, 2, 2)]), [sample(torch.zeros(3, 2, 2), high=(0.0, 0.0))]
    )
    assert metric.evaluate(1) == {
        'reconstruction/psnr': pytest.approx(148.13, abs=0.01),
        'reconstruction/high_share': 0,
    }
    with pytest.raises(KeyError, match='every sample must have decoded_pixels'):
        metric.process(dict(inputs=[torch.zeros(3, 2, 2)]), [dict(pred_score=1)])
