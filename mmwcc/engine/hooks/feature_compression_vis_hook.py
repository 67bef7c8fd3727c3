"""Show what compression does to feature maps, while a network is trained and tested."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from mmengine.dist import master_only
from mmengine.hooks import Hook
from torch import Tensor, nn

from mmwcc.diagnostics import eligible_layers, observe_inputs
from mmwcc.engine.figures import FeatureMap, draw_feature_maps, to_pixels
from mmwcc.engine.input_images import observe_images, rgb_pixels
from mmwcc.functional import check_keep_ratio
from mmwcc.layers import WaveletCompressedConv2d, WaveletCompressedLinear, fitting_levels
from mmwcc.model_tree import (
    LayerState,
    matches,
    named_layers,
    names_by_layer,
    no_match,
    unwrapped,
)
from mmwcc.quantizers import EnergyActQuantizer
from mmwcc.registry import HOOKS
from mmwcc.utils import undo_normalization

__all__ = ['FeatureCompressionVisHook']

_SPREAD = 4


@HOOKS.register_module()
class FeatureCompressionVisHook(Hook):
    """Draw feature maps dense, quantized at equal cost and wavelet compressed, with kept positions.

    The maps are the inputs of chosen 1x1 convolutions, dense or compressed, and of chosen
    :class:`mmwcc.layers.WaveletCompressedLinear`, for the first image of a validation or test. Of
    the windows of an image, the first one is drawn. Wavelet compressed layers are drawn with their
    current keep_ratio, bits, levels, wavelet and selection. Other layers are drawn with 8 bits and
    the Haar wavelet in 3 levels. Clips are not the learned ones but those with the least squared
    error for the map that is drawn. The figure goes to the visualizer as ``feature_compression``,
    and from there to all its backends.

    Args:
        layers: Regular expressions for whole qualified names. Each match is one row of the figure.
            Defaults to None: four layers spread through the network, without auxiliary heads, which
            run in training only.
        keep_ratio: Fraction of the positions to keep, in (0, 1]. Defaults to None: the value of the
            layer, or 0.25 if it has none.
        interval: Number of validations between two figures. Defaults to 1.

    Raises:
        TypeError: If layers is a string, or keep_ratio is not a number.
        ValueError: If interval is less than 1 or keep_ratio is not in (0, 1].
        ValueError: Before a run, if the model has no 1x1 convolution, or a pattern matches none.

    Note:
        If an image is processed in several pieces or sizes (sliding windows, test-time
        augmentation), the first one is drawn. Of a sequence of frames, that is the target. Images
        are taken to be loaded as BGR unless their dataset or a transform has
        ``channel_order = 'rgb'``. Maps smaller than ``2**levels`` are left out.

    Example:
        >>> default_hooks = dict(feature_compression=dict(
        ...     type='mmwcc.FeatureCompressionVisHook',
        ...     layers=[r'backbone\\.layer[24]\\.0\\.conv\\.0\\.conv']))
    """

    priority = 'NORMAL'

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        keep_ratio: float | None = None,
        interval: int = 1,
    ) -> None:
        if isinstance(layers, str):
            raise TypeError(
                'FeatureCompressionVisHook: layers must be a list of regular expressions, got '
                f'{layers!r}. Did you mean [{layers!r}]?'
            )
        if interval < 1:
            raise ValueError(
                f'FeatureCompressionVisHook: interval must be at least 1, got {interval}. Leave '
                'the hook out to draw nothing.'
            )
        if keep_ratio is not None:
            check_keep_ratio('FeatureCompressionVisHook', keep_ratio)
        self.layers, self.keep_ratio, self.interval = layers, keep_ratio, interval
        self._validations = 0
        self._observing = ExitStack()
        self._inputs: dict[str, Tensor] = {}
        self._image: Tensor | None = None

    def before_run(self, runner) -> None:
        """Choose the layers now, so that a pattern without a match fails before the run starts."""
        model = unwrapped(runner.model)
        known = names_by_layer(named_layers(model, nn.Conv2d, nn.Linear))
        self._names = self._choose(
            {name: known[layer] for name, layer in eligible_layers(model).items()}
        )

    def before_val_epoch(self, runner) -> None:
        """Count validations."""
        self._validations += 1

    def before_val_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Start observing, in the first batch."""
        if batch_idx == 0 and (self._validations - 1) % self.interval == 0:
            self._observe(runner, runner.val_dataloader)

    def after_val_iter(
        self, runner, batch_idx: int, data_batch: dict | None = None, outputs=None
    ) -> None:
        """Draw the observed maps."""
        self._draw(runner)

    def before_test_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Start observing, in the first batch."""
        if batch_idx == 0:
            self._observe(runner, runner.test_dataloader)

    def after_test_iter(
        self, runner, batch_idx: int, data_batch: dict | None = None, outputs=None
    ) -> None:
        """Draw the observed maps."""
        self._draw(runner)

    def _choose(self, known: dict[str, list[str]]) -> list[str]:
        """Choose layers by name. ``known`` holds all names of each, of which shared ones have
        several.
        """
        names = list(known)
        if not names:
            raise ValueError(
                'FeatureCompressionVisHook: the model must have a 1x1 convolution with one group, '
                'got none. Leave the hook out for this model.'
            )
        if self.layers is None:
            names = [name for name in names if 'auxiliary' not in name] or names
            places = sorted(
                {round(part * (len(names) - 1) / (_SPREAD - 1)) for part in range(_SPREAD)}
            )
            return [names[place] for place in places]
        chosen = set()
        for pattern in self.layers:
            found = {name for name in names if any(matches(pattern, each) for each in known[name])}
            if not found:
                raise ValueError(
                    no_match(
                        'FeatureCompressionVisHook', 'entry of layers (1x1 only)', pattern, names
                    )
                )
            chosen |= found
        return [name for name in names if name in chosen]

    @master_only
    def _observe(self, runner, dataloader) -> None:
        model = unwrapped(runner.model)
        # Look them up again, because hooks that replace layers, such as FuseHook, run after
        # before_run.
        layers = eligible_layers(model)
        self._layers = {name: layers[name] for name in self._names if name in layers}
        self._inputs, self._image = {}, None
        self._observing.enter_context(observe_inputs(self._layers, self._take_input))
        preprocessor = getattr(model, 'data_preprocessor', None)

        def take(inputs) -> None:
            if self._image is None:
                image = inputs[0].detach()
                target = image[0] if image.dim() == 4 else image
                pixels = undo_normalization(target, preprocessor)
                self._image = rgb_pixels(pixels, preprocessor, dataloader.dataset)

        self._observing.callback(observe_images(model, take).remove)

    def _take_input(self, name: str, x: Tensor) -> None:
        self._inputs.setdefault(name, x[0].clone())

    @master_only
    def _draw(self, runner) -> None:
        self._observing.close()
        if self._image is None:
            return
        maps = [self._settings(name, values) for name, values in self._inputs.items()]
        maps = [
            feature_map
            for feature_map in maps
            if min(feature_map.values.shape[1:]) >= 2**feature_map.levels
        ]
        if maps:
            figure = draw_feature_maps(self._image, maps)
            runner.visualizer.add_image('feature_compression', to_pixels(figure), runner.iter)
        else:
            runner.logger.warning(
                f'FeatureCompressionVisHook drew nothing: none of {", ".join(self._names)} was '
                'given a map that its transform can divide. Choose other layers.'
            )
        self._inputs, self._image = {}, None

    def _settings(self, name: str, values: Tensor) -> FeatureMap:
        layer = self._layers[name]
        if not isinstance(layer, (WaveletCompressedConv2d, WaveletCompressedLinear)):
            return FeatureMap(name, values, self.keep_ratio or 0.25)
        quantizer, levels = layer.act_quant, layer.levels
        if not isinstance(quantizer, EnergyActQuantizer) or not quantizer.is_on:
            quantizer = None
        if isinstance(layer, WaveletCompressedLinear):
            levels = fitting_levels((values.shape[1], values.shape[2]), levels)
        return FeatureMap(
            name,
            values,
            self.keep_ratio or layer.keep_ratio,
            int(LayerState.of(layer).act_bits) if quantizer is None else 8,
            levels,
            layer.wavelet,
            layer.selection,
            quantizer,
        )
