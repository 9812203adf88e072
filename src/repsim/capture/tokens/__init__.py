"""Where the tokens of a model lie in its input: evidence, then rules, then a grid.

Evidence from a forward (``_evidence``) passes through functions of plain numbers (``_rules``) and
becomes a :class:`TokenGrid` (``_grid``). Every analysis uses this package, so one model has one
geometry.
"""

from repsim.capture.tokens._axes import PositionAxes
from repsim.capture.tokens._evidence import (
    Declared,
    ModelInput,
    declared_prefix,
    modules_around,
    watching,
)
from repsim.capture.tokens._grid import (
    GridOption,
    PatchOption,
    PrefixOption,
    TokenGrid,
    TokenOptions,
    VideoGridOption,
    VideoPatchOption,
)
from repsim.capture.tokens._order import Order, PatchOrder
from repsim.capture.tokens._queries import Queries
from repsim.capture.tokens._rules import (
    MOST_PREFIX,
    Convolution,
    Move,
    Size,
    grid_of_map,
    grid_of_sequence,
    prefix_of_sequence,
    real_in_windows,
    reduction,
    tiles,
    window_of,
)
from repsim.capture.tokens._steps import divided, maps_of_image, steps_of
from repsim.capture.tokens._video import (
    VideoSize,
    between_frames,
    channels_of_video,
    grid_of_video,
    video_of,
)

__all__ = [
    "MOST_PREFIX",
    "Convolution",
    "Declared",
    "GridOption",
    "ModelInput",
    "Move",
    "Order",
    "PatchOption",
    "PatchOrder",
    "PositionAxes",
    "PrefixOption",
    "Queries",
    "Size",
    "TokenGrid",
    "TokenOptions",
    "VideoGridOption",
    "VideoPatchOption",
    "VideoSize",
    "between_frames",
    "channels_of_video",
    "declared_prefix",
    "divided",
    "grid_of_map",
    "grid_of_sequence",
    "grid_of_video",
    "maps_of_image",
    "modules_around",
    "prefix_of_sequence",
    "real_in_windows",
    "reduction",
    "steps_of",
    "tiles",
    "video_of",
    "watching",
    "window_of",
]
