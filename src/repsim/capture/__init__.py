"""Recording the representations of torch models: choice of layers, tensors and batch axes."""

from repsim.capture._bound import BoundTransform
from repsim.capture._containers import parts_of, rebuilt, tensors_in
from repsim.capture._hooks import evaluating
from repsim.capture._masks import MaskOption, Masks
from repsim.capture._means import mean_of
from repsim.capture._near import carried, real_places, values_of
from repsim.capture._output import Select, UnusableOutput
from repsim.capture._recorder import Recorder
from repsim.capture._reduce import REDUCERS, Reducer, token
from repsim.capture._sequences import AUTO, Follows, Sequences, are_labels_padded, shortened
from repsim.capture._transform import LayerTransform, Transform, resolve_transform
from repsim.capture._unmasked import series_of, text_of
from repsim.capture._without_values import refuse_meta, refuse_meta_batch
from repsim.capture.attention._call import AttentionCall
from repsim.capture.attention._recorder import AttentionRecorder
from repsim.capture.attention._rows import log_of
from repsim.capture.layers._blocks import blocks_of
from repsim.capture.layers._select import (
    Layer,
    Layers,
    LayerSpec,
    Selection,
    listing,
    select_layers,
)
from repsim.capture.layers._walk import kind_of, named_layers, unwrap
from repsim.capture.replacing._splice import spliced
from repsim.capture.residual._blocks import (
    BlockCall,
    BlockFinder,
    residual_blocks,
    watching_blocks,
)
from repsim.capture.residual._join import Join
from repsim.capture.residual._removal import Removal, without_residual
from repsim.capture.residual._sites import ResidualSite, ResidualSites, SiteFinder
from repsim.capture.tokens._texts import TextPositions

__all__ = [
    "AUTO",
    "REDUCERS",
    "AttentionCall",
    "AttentionRecorder",
    "BlockCall",
    "BlockFinder",
    "BoundTransform",
    "Follows",
    "Join",
    "Layer",
    "LayerSpec",
    "LayerTransform",
    "Layers",
    "MaskOption",
    "Masks",
    "Recorder",
    "Reducer",
    "Removal",
    "ResidualSite",
    "ResidualSites",
    "Select",
    "Selection",
    "Sequences",
    "SiteFinder",
    "TextPositions",
    "Transform",
    "UnusableOutput",
    "are_labels_padded",
    "blocks_of",
    "carried",
    "evaluating",
    "kind_of",
    "listing",
    "log_of",
    "mean_of",
    "named_layers",
    "parts_of",
    "real_places",
    "rebuilt",
    "refuse_meta",
    "refuse_meta_batch",
    "residual_blocks",
    "resolve_transform",
    "select_layers",
    "series_of",
    "shortened",
    "spliced",
    "tensors_in",
    "text_of",
    "token",
    "unwrap",
    "values_of",
    "watching_blocks",
    "without_residual",
]
