"""Writing results to a run folder, and to one page that shows them."""

from __future__ import annotations

from repsim.report._page import write_report
from repsim.report._run import load_results, save_result

__all__ = ["load_results", "save_result", "write_report"]
