"""Depth from single images, learned from video, stereo pairs or measured depth."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS as ROOT_MODELS
from torch import Tensor

from mmwcc.registry import MODELS

from .geometry import disp_to_depth, pose_matrix, warp
from .losses import (
    edge_aware_smoothness,
    least_reprojection_error,
    log_depth_error,
    photometric_error,
)

__all__ = ['Monodepth2']


@MODELS.register_module()
class Monodepth2(BaseModel):
    """Predict depth, and learn it by rebuilding each image from its neighbours.

    Training samples carry ``frames`` (1 + S, 3, H, W) uint8, the target followed by its S sources;
    ``intrinsics`` (3, 3) in pixels; and the meta information ``frame_ids``, such as (-1, 1). A
    frame id 's' is the other camera of a stereo pair. Where they are known, samples also carry
    ``source_poses`` (S, 4, 4) and ``gt_depth`` (H, W), which is 0 where nothing was measured.
    ``inputs`` are the same frames, augmented and normalized, (B, 1 + S, 3, H, W). For prediction
    the target alone is enough.

    - Self-supervised from video: a ``pose_net`` and ``frame_ids`` (-1, 1). The scale of depth is
      unknown.
    - From stereo pairs: ``frame_ids`` ('s', ), whose pose is known. With a ``pose_net``, (-1, 1,
      's') combines both.
    - Supervised: ``depth_weight`` above 0, either alone (``photometric_weight`` = 0) or in
      addition.

    Args:
        backbone: Config of an encoder of any package that returns features at strides 2, 4, 8, 16
            and 32.
        decoder: Config of the decoder, see :class:`DepthDecoder`.
        pose_net: Config of the pose network, see :class:`PoseNetwork`. Defaults to None: all poses
            must be known.
        min_depth: Depth at disparity 1, in the unit of the poses. Defaults to 0.1.
        max_depth: Depth at disparity 0. Defaults to 100.
        photometric_weight: Weight of the reprojection error. Defaults to 1.
        ssim_weight: Share of SSIM in the reprojection error; the rest is the absolute difference.
            Defaults to 0.85.
        auto_mask: Whether to leave out pixels that a camera at rest explains best. Defaults to
            True.
        smoothness_weight: Weight of the smoothness of disparities, halved from scale to scale.
            Defaults to 1e-3.
        depth_weight: Weight of the error against ``gt_depth``, computed on logarithms. Defaults to
            0.
        data_preprocessor: Config of the preprocessor. Defaults to None,
            :class:`DepthDataPreprocessor` with its default arguments.
        init_cfg: mmengine's initialization. Defaults to None.

    Raises:
        ValueError: If 0 < min_depth < max_depth does not hold.
        ValueError: If both photometric_weight and depth_weight are 0.
        ValueError: If there is a pose_net and photometric_weight is 0.
        ValueError: In use, if mode is unknown, or a training sample lacks what its losses need.

    Reference:
        Godard et al., "Digging into Self-Supervised Monocular Depth Estimation", ICCV 2019.
    """

    def __init__(
        self,
        backbone: dict,
        decoder: dict,
        pose_net: dict | None = None,
        min_depth: float = 0.1,
        max_depth: float = 100.0,
        photometric_weight: float = 1.0,
        ssim_weight: float = 0.85,
        auto_mask: bool = True,
        smoothness_weight: float = 1e-3,
        depth_weight: float = 0.0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor or dict(type='mmwcc.DepthDataPreprocessor'), init_cfg)
        if not 0 < min_depth < max_depth:
            raise ValueError(
                f'Monodepth2: min_depth must be in (0, max_depth), got {min_depth} and '
                f'{max_depth}. Use 0.1 and 100.'
            )
        if photometric_weight == 0 and depth_weight == 0:
            raise ValueError(
                'Monodepth2: photometric_weight or depth_weight must be above 0, got 0 for both. '
                'Use depth_weight=1.0 to learn from measured depth.'
            )
        if photometric_weight == 0 and pose_net is not None:
            raise ValueError(
                'Monodepth2: pose_net must be None where photometric_weight is 0, got a config. '
                'Nothing would train it.'
            )
        self.backbone = ROOT_MODELS.build(backbone)
        self.decoder = ROOT_MODELS.build(decoder)
        self.pose_net = None if pose_net is None else ROOT_MODELS.build(pose_net)
        self.depth_range = (min_depth, max_depth)
        self.photometric_weight, self.depth_weight = photometric_weight, depth_weight
        self.smoothness_weight, self.ssim_weight, self.auto_mask = (
            smoothness_weight,
            ssim_weight,
            auto_mask,
        )

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor'):
        """Run one of the three modes.

        'tensor' returns disparities, 'loss' a dict of losses, and 'predict' samples.
        """
        if mode == 'tensor':
            return self._forward(inputs)
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise ValueError(
            f"Monodepth2: mode must be 'tensor', 'loss' or 'predict', got {mode!r}. Use 'tensor' "
            'for '
            'disparities.'
        )

    def _forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the sigmoid disparities of the target images at strides 1, 2, 4 and 8.

        Their shapes are (B, 1, H / s, W / s) for stride s.
        """
        target = inputs[:, 0] if inputs.dim() == 5 else inputs
        return self.decoder(self.backbone(target), target.shape[-2:])

    def predict(self, inputs: Tensor, data_samples: list) -> list:
        """Return the samples with ``pred_depth`` (H, W) at the size of the input."""
        depth = disp_to_depth(self._forward(inputs)[0].float(), *self.depth_range)
        for sample, prediction in zip(data_samples, depth[:, 0], strict=True):
            sample.pred_depth = prediction
        return data_samples

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Return the losses, each the mean over the four scales."""
        disps = self._forward(inputs)
        frames = self._stacked(data_samples, 'frames').float() / 255
        size = frames.shape[-2:]
        depths = [
            disp_to_depth(
                F.interpolate(disp.float(), size, mode='bilinear', align_corners=False),
                *self.depth_range,
            )
            for disp in disps
        ]
        losses: dict[str, Any] = {}
        if self.photometric_weight:
            poses = self.source_poses(inputs, data_samples)
            intrinsics = self._stacked(data_samples, 'intrinsics')
            error = self._photometric_loss(frames, depths, poses, intrinsics)
            losses['loss_photometric'] = self.photometric_weight * error
        if self.depth_weight:
            measured = self._stacked(data_samples, 'gt_depth').unsqueeze(1)
            errors = [log_depth_error(depth, measured) for depth in depths]
            losses['loss_depth'] = self.depth_weight * sum(errors) / len(depths)
        if self.smoothness_weight:
            target = frames[:, 0]
            smooth = sum(
                edge_aware_smoothness(
                    disp.float(), F.interpolate(target, disp.shape[-2:], mode='area')
                )
                / 2**scale
                for scale, disp in enumerate(disps)
            )
            losses['loss_smoothness'] = self.smoothness_weight * smooth / len(disps)
        return losses

    def reproject(self, inputs: Tensor, data_samples: list) -> Tensor:
        """Rebuild the target from each of its sources, shape (B, S, 3, H, W).

        The rebuilt images use the predicted depth and poses.
        """
        depth = disp_to_depth(self._forward(inputs)[0].float(), *self.depth_range)
        frames = self._stacked(data_samples, 'frames').float() / 255
        poses, intrinsics = (
            self.source_poses(inputs, data_samples),
            self._stacked(data_samples, 'intrinsics'),
        )
        return torch.stack(
            [
                warp(source, depth, pose, intrinsics)
                for source, pose in zip(frames[:, 1:].unbind(1), poses, strict=True)
            ],
            1,
        )

    def source_poses(self, inputs: Tensor, data_samples: list) -> list[Tensor]:
        """Return the transformations (B, 4, 4) from the axes of the target to those of each source.

        A pose network, where there is one, estimates how the camera moved from frame to frame. The
        pose between the two cameras of a stereo pair, and every pose if there is no pose network,
        is taken from ``source_poses`` of the samples.
        """
        frame_ids = data_samples[0].get('frame_ids', ())
        if not frame_ids or inputs.dim() != 5 or inputs.shape[1] != 1 + len(frame_ids):
            raise ValueError(
                f'Monodepth2: inputs must hold a target and its sources, got {tuple(inputs.shape)} '
                'for '
                f'frame_ids {tuple(frame_ids)}. Use mmwcc.PackDepthInputs, and frame_ids=(-1, 1) '
                "or ('s',)"
                ' in the data set.'
            )
        target, poses = inputs[:, 0], []
        for i, frame_id in enumerate(frame_ids):
            if self.pose_net is None or frame_id == 's':
                poses.append(self._known_poses(data_samples, i, frame_id))
                continue
            # The network expects the two images in chronological order.
            earlier, later = (
                (inputs[:, 1 + i], target) if frame_id < 0 else (target, inputs[:, 1 + i])
            )
            turn, shift = (part.float() for part in self.pose_net(earlier, later))
            poses.append(pose_matrix(turn, shift, invert=frame_id < 0))
        return poses

    def _known_poses(self, data_samples: list, index: int, frame_id) -> Tensor:
        poses = self._stacked(data_samples, 'source_poses')[:, index]
        if not torch.isfinite(poses).all():
            raise ValueError(
                f'Monodepth2: the pose of frame {frame_id} must be known, got none. Give the model '
                'a pose_net, or frames whose poses the data set knows.'
            )
        return poses

    def _photometric_loss(
        self, frames: Tensor, depths: list[Tensor], poses: list[Tensor], intrinsics: Tensor
    ) -> Tensor:
        target, sources = frames[:, 0], frames[:, 1:].unbind(1)
        identity = None
        if self.auto_mask:
            identity = torch.cat(
                [photometric_error(source, target, self.ssim_weight) for source in sources], 1
            )
        total = target.new_zeros(())
        for depth in depths:
            warped = [
                photometric_error(warp(source, depth, pose, intrinsics), target, self.ssim_weight)
                for source, pose in zip(sources, poses, strict=True)
            ]
            total = total + least_reprojection_error(torch.cat(warped, 1), identity)
        return total / len(depths)

    @staticmethod
    def _stacked(data_samples: list, field: str) -> Tensor:
        missing = [sample for sample in data_samples if field not in sample]
        if missing:
            raise ValueError(
                f'Monodepth2: every training sample must have {field}, got only '
                f'{sorted(missing[0].all_keys())}. Use a data set and a pipeline of depth frames, '
                'which docs/depth.md describes.'
            )
        return torch.stack([sample.get(field) for sample in data_samples])
