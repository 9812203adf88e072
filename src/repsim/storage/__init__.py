"""Files that survive a kill: saved states, journals, and the store of activations."""

from repsim.storage._atomic import differences, write_whole
from repsim.storage._checkpoint import Checkpoint
from repsim.storage._interrupts import uninterrupted
from repsim.storage._lock import locked
from repsim.storage._names import LONGEST, safe_name
from repsim.storage._nested import from_arrays, to_arrays
from repsim.storage._open import open_activations
from repsim.storage._pooled import EQUAL_MEANS
from repsim.storage._store import ActivationStore
from repsim.storage.parts._run import (
    begin_parts,
    check_parts,
    end_parts,
    part_name,
    rows_of_chunk,
)
from repsim.storage.places._address import Place, place_of

__all__ = [
    "EQUAL_MEANS",
    "LONGEST",
    "ActivationStore",
    "Checkpoint",
    "Place",
    "begin_parts",
    "check_parts",
    "differences",
    "end_parts",
    "from_arrays",
    "locked",
    "open_activations",
    "part_name",
    "place_of",
    "rows_of_chunk",
    "safe_name",
    "to_arrays",
    "uninterrupted",
    "write_whole",
]
