"""Recording the representations of torch models: which layers, which tensor, which axis, safely."""

from repsim.capture._output import Select
from repsim.capture._recorder import Recorder
from repsim.capture._reduce import REDUCERS, Reducer, token
from repsim.capture._select import Layer, Layers, LayerSpec, Selection, select_layers
from repsim.capture._transform import LayerTransform, Transform, resolve_transform
from repsim.capture._walk import named_layers, unwrap

__all__ = [
    "REDUCERS",
    "Layer",
    "LayerSpec",
    "LayerTransform",
    "Layers",
    "Recorder",
    "Reducer",
    "Select",
    "Selection",
    "Transform",
    "named_layers",
    "resolve_transform",
    "select_layers",
    "token",
    "unwrap",
]
