"""MobileNetV2 with every kind of block, but not seventeen of them."""

from importlib import import_module


def register(library: str) -> None:
    """Register ``ToyMobileNetV2`` in mmseg or mmdet: two blocks in the second stage, one elsewhere.

    Strides, dilations and channels are those of the whole network, and one block has a residual.
    The time to trace or export a network grows with the number of its layers.
    """
    network = import_module(f'{library}.models').MobileNetV2
    second = network.arch_settings[1]
    stages = [
        row if row is second else [*row[:2], 1, *row[3:]]  # expansion, channels, blocks, more
        for row in network.arch_settings
    ]
    toy = type('ToyMobileNetV2', (network,), dict(arch_settings=stages))
    import_module(f'{library}.registry').MODELS.register_module(module=toy, force=True)
