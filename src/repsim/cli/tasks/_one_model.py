"""The work of ``repsim analyse`` and ``repsim attention``: run analyses of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from repsim._errors import CaptureError, InputError, NonFiniteError, RepsimError
from repsim.cli._literals import near
from repsim.cli._needs import need
from repsim.cli._outcome import FAILED, Interrupted, UsageError
from repsim.cli._run_folder import RunFolder
from repsim.cli._session import Session
from repsim.cli._tables import dataset_json, show_result
from repsim.cli._wording import on_the_command_line
from repsim.cli.data._inputs import Inputs
from repsim.cli.models._load import ModelRequest, chosen_layers, load_model
from repsim.cli.tasks._analyses import ANALYSES, Task, Tokens
from repsim.cli.tasks._provenance import model_provenance, with_provenance

__all__ = ["Ending", "analyse_model", "check_names", "measure_one"]


@dataclass(frozen=True)
class Ending:
    """How an analysis ended: "done", "skipped" or "failed", and why."""

    name: str
    status: str
    reason: str = ""


def check_names(names: Sequence[str]) -> list[str]:
    """Return the analyses to run, in their fixed order.

    Raises
    ------
    UsageError
        There is no such analysis.
    """
    for name in names:
        if name not in ANALYSES:
            raise UsageError(
                f"--only: unknown analysis.\n  expected one of {', '.join(ANALYSES)}\n"
                f"  got {name!r}{near(name, list(ANALYSES))}"
            )
    return [name for name in ANALYSES if not names or name in names]


def analyse_model(
    session: Session,
    request: ModelRequest,
    inputs: Inputs,
    names: Sequence[str],
    layers: Sequence[str] | None,
    tokens: Tokens,
    *,
    out: Path,
    progress: bool,
) -> int:
    """Run the analyses that are not finished yet; return the exit code."""
    request.check()
    # Without the list of analyses, because later calls may add analyses to a folder.
    arguments = _arguments(request, inputs, layers, tokens)
    folder = RunFolder(session, out, "analyse", arguments, data=inputs.data)
    waiting = [name for name in names if not folder.has(name) and name not in folder.skipped]
    endings = {name: Ending(name, "done") for name in names if folder.has(name)}
    endings |= {
        name: Ending(name, "skipped", reason)
        for name, reason in folder.skipped.items()
        if name in names
    }
    if waiting:
        task = _task(session, request, inputs, layers, tokens, progress)
        task.state = folder.state
        folder.begin({"model": task.model.digest()})
        described = model_provenance(request, task.model)
        for name in waiting:
            session.note(f"{name} ...")
            endings[name] = _one(session, name, task, described, folder)
            if endings[name].status != "done":
                session.note(f"  {endings[name].status}: {endings[name].reason}")
        inputs.bad.tell(session)
    else:
        session.note(f"note: {folder.path} is finished; nothing is computed again.")
    page = folder.write_page() if any(each.status == "done" for each in endings.values()) else None
    _show(session, request, [endings[name] for name in names], out, page)
    return FAILED if any(each.status == "failed" for each in endings.values()) else 0


def measure_one(
    session: Session,
    command: str,
    name: str,
    request: ModelRequest,
    inputs: Inputs,
    layers: Sequence[str] | None,
    tokens: Tokens,
    *,
    out: Path | None,
    progress: bool,
) -> None:
    """Run one analysis that must succeed, and show its result."""
    request.check()
    folder = None
    if out is not None:
        arguments = _arguments(request, inputs, layers, tokens)
        folder = RunFolder(session, out, command, arguments, data=inputs.data)
    if folder is not None and folder.has(name):
        session.note(f"note: {folder.path} is finished; nothing is computed again.")
        result = folder.load(name)
    else:
        task = _task(session, request, inputs, layers, tokens, progress)
        if folder is not None:
            folder.begin({"model": task.model.digest()})
        task.attention = task.wanted
        result = ANALYSES[name](task)
        result = with_provenance(session, result, inputs, model_provenance(request, task.model))
        inputs.bad.tell(session)
        if folder is not None:
            folder.save(name, result)
    page = None if folder is None else folder.write_page()
    if session.as_json:
        files = None if page is None else {"folder": str(out), "report": str(page)}
        session.emit({"command": command, "files": files, **dataset_json(result)})
        return
    show_result(session, result)
    if page is not None:
        session.line(f"saved in {out}; the page is {page}")


def _arguments(
    request: ModelRequest, inputs: Inputs, layers: Sequence[str] | None, tokens: Tokens
) -> dict[str, Any]:
    return {
        "model": request.arguments(),
        **inputs.arguments(),
        "layers": None if layers is None else list(layers),
        **asdict(tokens),
    }


def _task(
    session: Session,
    request: ModelRequest,
    inputs: Inputs,
    layers: Sequence[str] | None,
    tokens: Tokens,
    progress: bool,
) -> Task:
    need("torch", request.spec)
    model = load_model(session, request)
    if layers is not None:
        chosen_layers(model, layers, "--layers")
    return Task(model, inputs, None if layers is None else tuple(layers), progress, tokens)


def _one(
    session: Session, name: str, task: Task, described: dict[str, Any], folder: RunFolder
) -> Ending:
    """Run one analysis and save its result; an error ends only this analysis."""
    try:
        result = ANALYSES[name](task)
    except (UsageError, Interrupted):
        raise
    except (CaptureError, InputError) as error:
        if isinstance(error, NonFiniteError):
            return Ending(name, "failed", str(error))
        # The model has no attention, grid or skips, or the data have no labels.
        reason = f"{error}{on_the_command_line(str(error), 'analyse')}"
        folder.skip(name, reason)
        return Ending(name, "skipped", reason)
    except RepsimError as error:
        return Ending(name, "failed", str(error))
    folder.save(name, with_provenance(session, result, task.inputs, described))
    if name == "layer_map":
        folder.state.unlink(missing_ok=True)
    return Ending(name, "done")


def _show(
    session: Session,
    request: ModelRequest,
    endings: list[Ending],
    out: Path,
    page: Path | None,
) -> None:
    if session.as_json:
        analyses = {
            each.name: {
                "status": each.status,
                **(
                    {"file": str(out / f"{each.name}.nc")}
                    if each.status == "done"
                    else {"reason": each.reason}
                ),
            }
            for each in endings
        }
        files = {"folder": str(out), "report": None if page is None else str(page)}
        session.emit(
            {"command": "analyse", "model": request.spec, "analyses": analyses, "files": files}
        )
        return
    session.table(
        f"Analyses of {request.spec}",
        ["analysis", "", "file or reason"],
        [
            [
                each.name,
                each.status,
                str(out / f"{each.name}.nc")
                if each.status == "done"
                else each.reason.partition("\n")[0],
            ]
            for each in endings
        ],
    )
    if page is not None:
        session.line(f"the page is {page}")
