"""The cost of one layer as data, which can be recomputed for other bits or keep ratios."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mmwcc.functional import check_keep_ratio, kept_positions, packed_ratio
from mmwcc.kernels import padded_size

from .formulas import transform_operations, whole

__all__ = ['KINDS', 'Geometry', 'LayerCost', 'Map']

KINDS = ('dense', 'quantized', 'wcc', 'transform')
"""The kinds of work that are counted.

They are products at full precision ('dense'), of quantized operands ('quantized') and of wavelet
coefficients ('wcc'), and the additions of transforms ('transform').
"""


class Map(NamedTuple):
    """One call of a layer, or of several maps in a call one of them.

    Attributes:
        macs: Multiply-accumulate operations for all images, without wavelet compression.
        inputs: Number of values that the product reads.
        batch: Number of images.
        size: Height and width of the output feature map.
        levels: Depth of its transform where that depends on the map, and 0 for tokens that are
            multiplied as they are. None stands for the depth that the layer has.
        continues: Whether it belongs to the same call as the one before.
    """

    macs: float
    inputs: int
    batch: int = 1
    size: tuple[int, ...] = ()
    levels: int | None = None
    continues: bool = False


@dataclass(frozen=True)
class Geometry:
    """What determines the cost of a layer, apart from its bits and its keep ratio.

    Attributes:
        maps: The calls of the layer.
        convention: 'exact' or 'paper'.
        weights: Number of weights.
        biases: Number of biases.
        scales: Number of scales stored for quantized weights, in addition to the layer's one.
        row: Values of a position if each is multiplied on its own, as by a 1x1 convolution or a
            linear layer, otherwise 0.
        pointwise: Input and output channels if the layer can be wavelet compressed, otherwise None.
        levels: Depth of the wavelet transform that the layer has or could have.
        wavelet: The wavelet of that transform.
        additions: Operations of a transform without a product.
    """

    maps: tuple[Map, ...]
    convention: str = 'exact'
    weights: int = 0
    biases: int = 0
    scales: int = 0
    row: int = 0
    pointwise: tuple[int, int] | None = None
    levels: int = 3
    wavelet: str = 'haar'
    additions: float = 0

    def levels_of(self, image: Map) -> int:
        """Return the depth of the transform in a call, or 0 if nothing is transformed."""
        return self.levels if image.levels is None else image.levels

    def positions(self, image: Map, keep_ratio: float) -> tuple[float, float]:
        """Return the number of kept wavelet positions and of all positions, over all images."""
        assert self.pointwise is not None, 'only 1x1 products have positions to keep'
        levels = self.levels_of(image)
        if self.convention == 'paper' or not levels:
            everything = image.macs / math.prod(self.pointwise)
            return (keep_ratio if levels else 1) * everything, everything
        everything = math.prod(padded_size(size, levels) for size in image.size)
        return image.batch * kept_positions(everything, keep_ratio), image.batch * everything

    def all_positions(self, name: str, keep_ratio: float) -> tuple[float, float]:
        """Return the numbers of :meth:`positions` for all maps of the layer ``name``.

        Raises:
            ValueError: If the layer cannot be wavelet compressed.
        """
        if self.pointwise is None:
            raise ValueError(
                f'LayerCost: keep_ratio of {name} must be None, got {keep_ratio}. Only 1x1 '
                'convolutions without padding and groups, and linear layers on maps, can be '
                'wavelet compressed; change bits.'
            )
        kept, everything = zip(
            *(self.positions(image, keep_ratio) for image in self.maps), strict=True
        )
        return sum(kept), sum(everything)

    def transforms(self, weight_bits: int) -> float:
        """Return the operations of analysis and synthesis for all maps."""
        assert self.pointwise is not None, 'only 1x1 products have positions to keep'
        return sum(
            transform_operations(
                sum(self.pointwise),
                self.positions(image, 1)[1],
                levels=self.levels_of(image),
                wavelet=self.wavelet,
                weight_bits=weight_bits,
            )
            for image in self.maps
            if self.levels_of(image)
        )

    @property
    def pixels(self) -> float:
        """Number of positions that are multiplied on their own, over all images."""
        return sum(image.inputs for image in self.maps) / self.row if self.row else 0


@dataclass(frozen=True)
class LayerCost:
    """The cost of one layer in one run of the model, over all its calls; :meth:`of` computes it.

    Attributes:
        name: Qualified name in the model.
        kind: One of :data:`KINDS`.
        macs: Multiply-accumulate operations of the product.
        bops: Bit operations of the product.
        transform_bops: Bit operations of wavelet analysis and synthesis.
        params: Weights and biases.
        weight_bytes: Bytes of the weights at their bits, plus those of the biases at 32 bits. If
            quantized weights have one scale per output channel, also those of the scales at 32
            bits.
        act_bytes: Bytes of the values that the product reads, at their bits. For kind 'wcc' these
            are the kept coefficients and one bit for each position. With ``widths`` they include a
            scale of 32 bits for each kept position, and as many bits as tell the width of each.
        weight_bits: Bits of the weights, 32 for full precision.
        act_bits: Bits of the values that the product reads, 32 for full precision.
        keep_ratio: Fraction of wavelet positions kept, or None if nothing is transformed.
        widths: Bits that a position can have, as in :class:`mmwcc.model_tree.LayerState`.
            ``act_bits`` is then their mean over all positions, those that are dropped included.
            Bit operations follow from this mean, and operations from how many positions can have
            bits at all.
        calls: How often the layer was called.
        geometry: The geometry, which :meth:`at` needs.
    """

    name: str
    kind: str
    macs: float
    bops: float
    transform_bops: float
    params: int
    weight_bytes: int
    act_bytes: int
    weight_bits: int
    act_bits: float
    keep_ratio: float | None
    widths: tuple[int, ...] | None
    calls: int
    geometry: Geometry = field(repr=False)

    @property
    def packed_ratio(self) -> float | None:
        """Fraction of wavelet positions that are computed with: keep_ratio, or what bits allow."""
        if self.keep_ratio is None:
            return None
        return packed_ratio(self.keep_ratio, self.act_bits, self.widths)

    @property
    def total_bops(self) -> float:
        """Bit operations of product and transforms."""
        return self.bops + self.transform_bops

    @classmethod
    def of(
        cls,
        name: str,
        geometry: Geometry,
        weight_bits: int = 32,
        act_bits: float = 32,
        keep_ratio: float | None = None,
        widths: tuple[int, ...] | None = None,
    ) -> LayerCost:
        """Compute the cost of a layer.

        Raises:
            TypeError: If keep_ratio is not a number.
            ValueError: If bits are not 2 ... 16 or 32, keep_ratio is not in (0, 1], or the layer
                cannot be wavelet compressed.

        Reference:
            Finder et al., NeurIPS 2022, equations (13) to (15).
        """
        _check_bits(name, 'weight_bits', weight_bits)
        if not widths:
            _check_bits(name, 'act_bits', act_bits)
        macs, transform = sum(image.macs for image in geometry.maps), geometry.additions
        bops = macs * weight_bits * act_bits
        act_bits_read = act_bits * sum(image.inputs for image in geometry.maps)
        if widths is not None:
            act_bits_read += _bits_beside(widths, geometry.pixels, geometry.pixels, one_width=0)
        kind = 'dense' if weight_bits == act_bits == 32 else 'quantized'
        if keep_ratio is not None:
            check_keep_ratio('LayerCost', keep_ratio)
            share = packed_ratio(keep_ratio, act_bits, widths)
            kept, everything = geometry.all_positions(name, share)
            assert geometry.pointwise is not None, 'all_positions has refused that'
            product = math.prod(geometry.pointwise)
            of_all = everything if widths else kept  # which positions act_bits is the mean of
            kind, macs, bops = 'wcc', kept * product, of_all * product * weight_bits * act_bits
            transform = geometry.transforms(weight_bits)
            act_bits_read = act_bits * geometry.pointwise[0] * of_all
            act_bits_read += _bits_beside(widths, kept, everything, one_width=1)
        elif geometry.additions:
            kind, act_bits_read = 'transform', 0
        singles = geometry.biases + (geometry.scales if weight_bits < 32 else 0)
        return cls(
            name,
            kind,
            whole(macs),
            whole(bops),
            whole(transform * (max(widths) if widths else act_bits)),
            geometry.weights + geometry.biases,
            math.ceil(geometry.weights * weight_bits / 8) + 4 * singles,
            math.ceil(act_bits_read / 8),
            weight_bits,
            act_bits,
            keep_ratio,
            widths,
            sum(not image.continues for image in geometry.maps),
            geometry,
        )

    def at(
        self,
        weight_bits: int | None = None,
        act_bits: float | None = None,
        keep_ratio: float | None = None,
        widths: tuple[int, ...] | None = None,
    ) -> LayerCost:
        """Return the cost of this layer at other bits or another keep ratio.

        Args:
            weight_bits: Bits of the weights. Defaults to None, which leaves them as they are.
            act_bits: Bits of the values that the product reads. Defaults to None, which leaves them
                as they are.
            keep_ratio: Fraction of wavelet positions kept. A 1x1 convolution that is not wavelet
                compressed then becomes so, with Haar at three levels. Defaults to None, which
                leaves it as it is.
            widths: Bits that a position can have. Defaults to None, which leaves them as they are.

        Raises:
            TypeError: If keep_ratio is not a number.
            ValueError: If a value is outside its range, or if keep_ratio is given for a layer that
                cannot be wavelet compressed.
        """
        return self.of(
            self.name,
            self.geometry,
            self.weight_bits if weight_bits is None else weight_bits,
            self.act_bits if act_bits is None else act_bits,
            self.keep_ratio if keep_ratio is None else keep_ratio,
            self.widths if widths is None else widths,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, without the geometry."""
        keys = [key for key in self.__dataclass_fields__ if key != 'geometry']
        return {key: getattr(self, key) for key in keys} | dict(total_bops=self.total_bops)


def _check_bits(name: str, role: str, bits: float) -> None:
    """Refuse bits that no layer can have."""
    if bits not in (*range(2, 17), 32):
        raise ValueError(
            f'LayerCost: {role} of {name} must be in 2 ... 16, or 32 for no quantization, got '
            f'{bits!r}. Use 8 for a start.'
        )


def _bits_beside(
    widths: tuple[int, ...] | None, kept: float, everything: float, one_width: int
) -> float:
    """Return the bits that describe positions, beside their values.

    Args:
        widths: As in :class:`LayerCost`. If they are not None, each kept position has a scale.
        kept: Number of kept positions.
        everything: Number of all positions.
        one_width: Bits that tell of each position whether it is kept, if all that are have one
            width.
    """
    scales = 0 if widths is None else 32 * kept
    code = math.ceil(math.log2(len(widths))) if widths else one_width
    return scales + code * everything
