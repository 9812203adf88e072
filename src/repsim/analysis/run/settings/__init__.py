"""Digests of what a call computes with that names, options and weights do not show."""

from repsim.analysis.run.settings._settings import (
    code_digest,
    codes_of,
    of_process,
    settings_digest,
)

__all__ = ["code_digest", "codes_of", "of_process", "settings_digest"]
