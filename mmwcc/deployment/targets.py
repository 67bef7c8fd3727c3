"""The runtimes that graphs are written for, and what each of them wants."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ['TARGETS', 'Target', 'target_of']


@dataclass(frozen=True)
class Target:
    """What a runtime computes in integers.

    Attributes:
        name: The name for the option ``--target``.
        title: The name for people.
        package: The Python package that runs graphs here, to verify them.
        signed: Whether signed maps are int8 with zero point 0. If not, they are uint8 with zero
            point 128, so that all maps have one type.
        integer_bias: Whether the bias of a convolution is int32.
        integer_sums: Whether a convolution whose sums are not rounded at once must be written as
            ConvInteger, because the runtime computes its Conv in integers only between
            DequantizeLinear and QuantizeLinear.
        early_concat: Whether maps must be rounded before a concatenation that is rounded twice
            behind it, because the runtime cannot read graphs with two roundings there.
        round_sums: Whether convolutions are fast only if their sums are rounded at once, see
            :func:`mmwcc.maps.add_map_scales`.
        own_operators: Whether graphs may hold operators that ONNX Runtime alone has.
        tolerance: Mean difference from torch that is allowed, of the mean magnitude, where the
            graph computes in floating point.
        integer_tolerance: The same where it computes in integers. Runtimes have biases in int32
            and ways of their own to go from one grid to another. Where most values are next to
            nothing, as after a few steps of training, that may be some hundredths of what is left.
    """

    name: str
    title: str
    package: str
    signed: bool = False
    integer_bias: bool = True
    integer_sums: bool = False
    early_concat: bool = False
    round_sums: bool = False
    own_operators: bool = False
    tolerance: float = 1e-3
    integer_tolerance: float = 0.05

    @property
    def runner(self) -> str:
        """The title of the runtime that verifies graphs here."""
        return TARGETS[self.package].title


TARGETS = {
    target.name: target
    for target in (
        Target(
            'onnxruntime',
            'ONNX Runtime',
            'onnxruntime',
            integer_sums=True,
            round_sums=True,
            own_operators=True,
        ),
        # It rounds sums of maps in its own way: of the first sum of a small DeepLabV3+, 1.5 % of
        # the levels differed by one. With two roundings behind a concatenation, 2026.4 ends the
        # process.
        Target('openvino', 'OpenVINO', 'openvino', early_concat=True, tolerance=1e-2),
        # It never runs here. ONNX Runtime computes what the graph says.
        Target('tensorrt', 'TensorRT', 'onnxruntime', signed=True, integer_bias=False),
    )
}
"""The runtimes, by name."""


def target_of(name: str) -> Target:
    """Return a target by its name.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in TARGETS:
        raise ValueError(
            f'export_onnx: target must be one of {", ".join(TARGETS)}, got {name!r}. Use '
            f"'onnxruntime'."
        )
    return TARGETS[name]
