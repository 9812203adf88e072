"""Outputs that a recorder leaves out, and its warnings about them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from repsim._errors import warn
from repsim.capture._output import UnusableOutput
from repsim.capture.layers._no_ops import UNCHANGED
from repsim.capture.layers._select import listing

__all__ = ["LeftOut"]

logger = logging.getLogger("repsim")


class LeftOut(dict[tuple[str, int], UnusableOutput]):
    """Why a call of a layer is not recorded, by (name, call); kept for the recorder's lifetime."""

    def __init__(self) -> None:
        super().__init__()
        self._reported: set[tuple[str, int]] = set()
        self._told_of_idle_layers = False

    def report(self, idle: Sequence[str], *, anything_ran: bool, recorded: bool) -> None:
        """Report each left-out output once: by a warning if it should be a batch, else in the log.

        Parameters
        ----------
        idle : sequence of str
            Chosen layers that did not run.
        anything_ran : bool
            Whether any chosen layer ran.
        recorded : bool
            Whether anything is recorded. If not, an error reports it.
        """
        if idle and anything_ran and not self._told_of_idle_layers:
            self._told_of_idle_layers = True
            logger.info("Recorder: did not run: %s", listing(idle))
        news = {key: why for key, why in self.items() if key not in self._reported}
        self._reported.update(news)
        same = [name for (name, _), why in news.items() if why.brief == UNCHANGED]
        quiet = [name for (name, _), why in news.items() if why.quiet and name not in same]
        for what, names in (("returned no batch", quiet), (UNCHANGED, same)):
            if names:
                logger.info("Recorder: %s: %s", what, listing(names))
        lines = [f"{name} {why.brief}" for (name, _), why in news.items() if not why.quiet]
        loud = list(dict.fromkeys(lines))  # calls of one layer are often alike
        if loud and recorded:
            shown = "".join(f"  {line}\n" for line in loud[:12])
            more = f"  and {len(loud) - 12} more\n" if len(loud) > 12 else ""
            warn(
                "Recorder: outputs that are not a batch that can be compared were left out:\n"
                f"{shown}{more}  {self._repairs()}",
            )

    def why_empty(self, chosen: Sequence[str], *, anything_ran: bool, called: bool) -> str:
        """Return the error that says why nothing is recorded.

        Parameters
        ----------
        chosen : sequence of str
            The names of the chosen layers.
        anything_ran : bool
            Whether any of them ran.
        called : bool
            Whether the model was called.
        """
        if not anything_ran:
            repair = "Call the model inside the block, or choose other layers."
            if called:
                repair = (
                    "The model ran without calling them: it may call their forward(), which "
                    "cannot be\n  recorded, or use their weights. Choose modules inside or "
                    "around them."
                )
            return f"Recorder: none of the chosen layers ran: {listing(chosen)}.\n  {repair}"
        left = [f"  {name}: {why.brief}\n" for (name, _), why in self.items()]
        return (
            "Recorder: nothing is left to record, no output is a batch that can be compared.\n"
            f"{''.join(left[:8])}"
            + (
                f"  {self._repairs(quiet=True)}"
                if self._special(quiet=True)
                else "  Pass batch_dim= if the batch is another axis (sequence-first models: "
                "batch_dim=1), select= to make\n  plain tensors of the outputs, or choose other "
                "layers."
            )
        )

    def _special(self, *, quiet: bool) -> list[str]:
        asked = (why.repair for why in self.values() if why.repair and (quiet or not why.quiet))
        return list(dict.fromkeys(asked))

    def _repairs(self, *, quiet: bool = False) -> str:
        special = "".join(f"Pass {repair}\n  " for repair in self._special(quiet=quiet))
        return f"{special}Pass batch_dim=, mask= or select=, or choose other layers."
