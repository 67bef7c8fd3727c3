"""Hooks find the layers of a model that test-time augmentation wraps; with real runners."""

from mmengine.model import BaseTTAModel
from mmengine.registry import MODELS
from toy_training import toy_config, toy_runner


@MODELS.register_module(force=True)
class ToyAugmented(BaseTTAModel):
    """Test-time augmentation that leaves the images as they are."""

    def test_step(self, data):
        return self.module.test_step(data)

    def merge_preds(self, data_samples_list):
        return data_samples_list[0]


def test_a_checkpoint_is_tested_with_augmentation_as_without(tmp_path):
    toy_runner(tmp_path, length=6).train()
    settings = dict(load_from=str(tmp_path / 'iter_6.pth'))
    plain = toy_runner(tmp_path, **settings)
    model = dict(type='ToyAugmented', module=toy_config(tmp_path).model.to_dict())
    augmented = toy_runner(tmp_path, model=model, **settings)
    assert augmented.test() == plain.test()
    # Bits and keep_ratio are those of the schedule at the moment of the checkpoint.
    assert str(augmented.model.module) == str(plain.model)
    assert 'keep_ratio=0.5' in str(plain.model)
