"""The modules of a model: finding, naming, running, replacing and reporting them."""

from .batches import described, each_batch
from .compressed import (
    compressed_layers,
    first_names,
    named_layers,
    unwrapped,
)
from .guard import LAYERS, guard, guards_off, lift_guards, note_loaded
from .layer_state import FULL_PRECISION, LayerState, set_layer_state, width_obstacle
from .names import (
    convolutions,
    dense_names,
    geometry,
    is_plain,
    kept_by_name,
    matches,
    names_by_layer,
    no_match,
    replaceable_layers,
)
from .predictors import prediction_layers
from .probe import (
    as_before,
    example_input,
    hooks_off,
    layer_progress,
    quantizers_off,
    run_on_image,
    run_on_zeros,
    tensor_mode,
    twin,
    undisturbed,
)
from .replace import all_or_nothing, has_hooks, obstacle, replace_layers, swap_layers
from .report import (
    CompressionReport,
    LayerReport,
    aligned,
    announce,
    describe_layer,
    setting_cells,
    weight_count,
)
from .token_grids import announced_grids, connect_grids
from .unhandled import UnhandledLayers, class_name, listed, unhandled_layers

__all__ = [
    'FULL_PRECISION',
    'LAYERS',
    'CompressionReport',
    'LayerReport',
    'LayerState',
    'UnhandledLayers',
    'aligned',
    'all_or_nothing',
    'announce',
    'announced_grids',
    'as_before',
    'class_name',
    'compressed_layers',
    'connect_grids',
    'convolutions',
    'dense_names',
    'describe_layer',
    'described',
    'each_batch',
    'example_input',
    'first_names',
    'geometry',
    'guard',
    'guards_off',
    'has_hooks',
    'hooks_off',
    'is_plain',
    'kept_by_name',
    'layer_progress',
    'lift_guards',
    'listed',
    'matches',
    'named_layers',
    'names_by_layer',
    'no_match',
    'note_loaded',
    'obstacle',
    'prediction_layers',
    'quantizers_off',
    'replace_layers',
    'replaceable_layers',
    'run_on_image',
    'run_on_zeros',
    'set_layer_state',
    'setting_cells',
    'swap_layers',
    'tensor_mode',
    'twin',
    'undisturbed',
    'unhandled_layers',
    'unwrapped',
    'weight_count',
    'width_obstacle',
]
