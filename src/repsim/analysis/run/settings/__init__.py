"""Digests of what a call computes with that names, options and weights do not show."""

from repsim.analysis.run.settings._settings import (
    autocast_of,
    code_digest,
    codes_of,
    of_process,
    settings_digest,
)

__all__ = ["autocast_of", "code_digest", "codes_of", "of_process", "settings_digest"]
