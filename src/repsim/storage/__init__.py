"""Files that survive a kill: checkpoints, journals, and the store of activations."""

from repsim.storage._atomic import differences, write_whole
from repsim.storage._checkpoint import Checkpoint
from repsim.storage._interrupts import uninterrupted
from repsim.storage._lock import locked
from repsim.storage._names import LONGEST, safe_name
from repsim.storage._nested import from_arrays, to_arrays
from repsim.storage._store import ActivationStore
from repsim.storage._stored import open_activations

__all__ = [
    "LONGEST",
    "ActivationStore",
    "Checkpoint",
    "differences",
    "from_arrays",
    "locked",
    "open_activations",
    "safe_name",
    "to_arrays",
    "uninterrupted",
    "write_whole",
]
