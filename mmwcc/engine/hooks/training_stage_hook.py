"""Log and check the stages of a training run."""

from __future__ import annotations

from mmengine.hooks import Hook

from mmwcc.model_tree import unwrapped
from mmwcc.registry import HOOKS

__all__ = ['TrainingStageHook']


@HOOKS.register_module()
class TrainingStageHook(Hook):
    """Log the beginning and end of a training stage, and check what it starts from.

    The log also says what the stage trains and what it freezes.

    Args:
        stage: Number of the stage, counted from 1.
        stages: Number of stages. Defaults to 3.
        note: Description of the stage for the log. Defaults to ''.
        needs_checkpoint: Whether the stage must start from ``load_from``, with a checkpoint that
            contains all its weights. Without ``load_from``, mmengine starts from random weights. If
            a checkpoint lacks some weights, those stay random. In both cases, the only sign is a
            line in the log. Defaults to False.

    Raises:
        ValueError: If stage is not in 1 to stages.
        RuntimeError: At the start of training, if needs_checkpoint is set and there is neither
            load_from nor a run to resume.
        RuntimeError: If the checkpoint to start from lacks weights of the model.

    Example:
        >>> TrainingStageHook(2, note='networks on the frozen auto-encoder').title
        'training stage 2 of 3 (networks on the frozen auto-encoder)'
    """

    priority = 'HIGH'

    def __init__(
        self, stage: int, stages: int = 3, note: str = '', needs_checkpoint: bool = False
    ) -> None:
        if not 1 <= stage <= stages:
            raise ValueError(
                f'TrainingStageHook: stage must be in 1 to stages={stages}, got {stage}. Count '
                f'from 1.'
            )
        self.stage, self.stages = stage, stages
        self.note, self.needs_checkpoint = note, needs_checkpoint

    @property
    def title(self) -> str:
        """The name of the stage in the log."""
        return f'training stage {self.stage} of {self.stages}' + (
            f' ({self.note})' if self.note else ''
        )

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Reject a starting checkpoint that lacks weights."""
        if not self.needs_checkpoint or runner._resume:
            return
        weights = {key.removeprefix('module.') for key in checkpoint.get('state_dict', checkpoint)}
        missing = [key for key in unwrapped(runner.model).state_dict() if key not in weights]
        if missing:
            raise RuntimeError(
                f'TrainingStageHook: {self.title} must start from a checkpoint of the stage '
                f'before, got one without {missing[0]} and {len(missing) - 1} other weights: '
                f'{runner._load_from}. Set load_from to the last checkpoint of that stage.'
            )

    def before_train(self, runner) -> None:
        """Log what is trained and what is frozen."""
        if self.needs_checkpoint and not (runner._load_from or runner._resume):
            raise RuntimeError(
                f'TrainingStageHook: {self.title} must start from a checkpoint of the stage '
                'before, got load_from=None. Set load_from to the last checkpoint of that stage, '
                'or run tools/train_stages.py, which does.'
            )
        trained: dict[str, int] = {}
        frozen: dict[str, int] = {}
        for name, parameter in unwrapped(runner.model).named_parameters():
            group = trained if parameter.requires_grad else frozen
            part = name.split('.')[0]
            group[part] = group.get(part, 0) + parameter.numel()
        runner.logger.info(
            f'{self.title} begins at iteration {runner.iter}, from '
            f'{runner._load_from or "the initialization that the config names"}. '
            f'Trained: {_counts(trained)}. Frozen: {_counts(frozen)}.'
        )

    def after_train(self, runner) -> None:
        """Log the end of the stage."""
        runner.logger.info(f'{self.title} ends at iteration {runner.iter}.')


def _counts(parts: dict[str, int]) -> str:
    return ', '.join(f'{part} ({count:,} parameters)' for part, count in parts.items()) or 'nothing'
