"""Fitting the maps of all pairs of layers on some batches, and measuring them on others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from repsim._errors import DegenerateWarning, InputError, NonFiniteError, warn
from repsim.analysis.probes._labelled import LabelsOf
from repsim.analysis.run._drive import Batch
from repsim.analysis.run._first_bad import FirstBad
from repsim.analysis.stitching._maps import AffineMap, FitSums
from repsim.analysis.stitching._outputs import Answers, LogitsOf, Scores, found_labels, logits_in
from repsim.analysis.stitching._positions import Form, Held, Unfit, brought
from repsim.analysis.stitching._side import Side
from repsim.capture import real_places, values_of
from repsim.results import STITCHING

if TYPE_CHECKING:
    import xarray

__all__ = ["FITTED", "IDENTITY", "RANDOM", "UNTRAINED", "Stitching"]

FITTED: Final = "fitted"
IDENTITY: Final = "identity"
RANDOM: Final = "random"
UNTRAINED: Final = "untrained"

Pair: TypeAlias = tuple[str, str]
"""The labels of a layer of x and of a layer of y."""


class Stitching:
    """The stitched models of all pairs of layers, with controls.

    Parameters
    ----------
    x, y : Side
        The models.
    untrained : Side or None
        The model of x with random weights.
    stitches : sequence of str
        The fitted map, and the controls.
    labels, logits : callable, optional
        The options of the caller.
    """

    def __init__(
        self,
        x: Side,
        y: Side,
        untrained: Side | None,
        stitches: list[str],
        labels: LabelsOf | None,
        logits: LogitsOf | None,
    ) -> None:
        self._x, self._y, self._untrained = x, y, untrained
        self._stitches, self._labels, self._logits = stitches, labels, logits
        self._layers: tuple[list[str], list[str]] | None = None
        self._unfit: dict[Pair, str] = {}
        self._sums: dict[tuple[str, Pair], FitSums] = {}
        self._maps: dict[tuple[str, Pair], AffineMap | None] = {}
        self._scores: dict[tuple[str, Pair], Scores] = {}
        self._own = Scores()
        self._first_bad = FirstBad(_not_finite)
        self._bad_logits = FirstBad(_not_finite_logits)
        self._classes: list[set[int]] = [set(), set()]  # fitted, measured
        self.n_fitted = self.n_measured = 0

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Keep the hooks of all models active."""
        with ExitStack() as stack:
            for side in {id(s): s for s in (self._x, self._y, self._untrained) if s}.values():
                stack.enter_context(side.in_place())
            yield

    # -- fitting ---------------------------------------------------------------------------------

    def fit(self, batch: Batch) -> None:
        """Add a batch to the sums of all pairs."""
        batch, labels = self._split(batch)
        self._note(labels, 0)
        held_x, _ = self._x.run(self._x.prepared(batch))
        held_y, output = self._y.run(self._y.prepared(batch))
        if self._layers is None:
            self._layers = list(held_x), list(held_y)
            logits_in(output, self._logits)  # an output without logits is found at once
        self._check_layers(batch, held_x, held_y)
        self.n_fitted += len(next(iter(held_x.values())).values)
        sides = [(FITTED, held_x)]
        if self._untrained is not None:
            sides.append((UNTRAINED, self._untrained.run(self._untrained.prepared(batch))[0]))
        for stitch, held in sides:
            for pair in self._pairs():
                if pair not in self._unfit and pair[0] in held:
                    self._add(stitch, pair, held[pair[0]], held_y[pair[1]], batch.number)
        self._first_bad.check(wait=False)

    def _add(self, stitch: str, pair: Pair, x: Held, y: Held, number: int) -> None:
        try:
            values = brought(x, y.form)
        except Unfit as reason:
            if (stitch, pair) in self._sums:
                raise InputError(
                    f"stitch: every batch must have positions that fit.\n"
                    f"  layers {pair[0]!r} and {pair[1]!r}, batch {number}: {reason}"
                ) from None
            self._unfit[pair] = str(reason)
            return
        real = y.real if x.real is None or x.values is not values else x.real
        if real is not None and y.real is not None and y.real is not real:
            real = values_of(real) & values_of(y.real)
        if real is None:
            rows = values.flatten(0, 1), y.values.flatten(0, 1)
        else:
            of_x, of_y = (each[real_places(real, each.device)] for each in (values, y.values))
            rows = of_x, of_y
        for layer, side, each in zip(pair, "xy", rows, strict=True):
            name = f"{layer!r} of model_{side}" + " with random weights" * (
                side == "x" and stitch == UNTRAINED
            )
            self._first_bad.add(name, torch.isfinite(each).all(), number)
        self._sums.setdefault((stitch, pair), FitSums()).add(*rows)

    def solve(self, ridge: float, seed: int) -> None:
        """Make the maps from the sums."""
        self._first_bad.check(wait=True)
        if not self._sums:
            first, reason = next(iter(self._unfit.items()))
            raise InputError(
                f"stitch: no layer of x can take the place of a layer of y.\n"
                f"  {first[0]!r} and {first[1]!r}: {reason}\n"
                f"  Choose layers of the same kind: vectors, tokens of the same number, or maps."
            )
        if self._unfit:
            shown = "".join(f"  {x!r} → {y!r}: {why}\n" for (x, y), why in self._few())
            warn(
                f"stitch: {len(self._unfit)} pairs of layers are left out, NaN there:\n{shown}"
                f"  Choose layers of the same kind: vectors, tokens of the same number, or maps."
            )
        for at, pair in enumerate(self._pairs()):
            if pair in self._unfit:
                continue
            sums = self._sums.pop((FITTED, pair))
            for stitch in self._stitches:
                if stitch == FITTED:
                    self._maps[stitch, pair] = sums.fitted(ridge)
                elif stitch == RANDOM:
                    generator = torch.Generator().manual_seed(seed + at)
                    self._maps[stitch, pair] = sums.random(generator)
                elif stitch == IDENTITY and sums.same_width:
                    self._maps[stitch, pair] = None
                elif stitch == UNTRAINED and (UNTRAINED, pair) in self._sums:
                    self._maps[stitch, pair] = self._sums.pop((UNTRAINED, pair)).fitted(ridge)

    def _few(self) -> list[tuple[Pair, str]]:
        return list(self._unfit.items())[:8]

    # -- measuring -------------------------------------------------------------------------------

    def measure(self, batch: Batch) -> None:
        """Run all stitched models on a batch, and compare their answers with those of y."""
        batch, labels = self._split(batch)
        self._note(labels, 1)
        held_x, _ = self._x.run(self._x.prepared(batch))
        for_y = self._y.prepared(batch)
        held_y, output = self._y.run(for_y)
        self._check_layers(batch, held_x, held_y)
        logits = logits_in(output, self._logits)
        n = len(next(iter(held_y.values())).values)
        if len(logits) != n:
            raise InputError(
                f"stitch: the logits of model_y must have the samples on axis 0.\n"
                f"  logits: {tuple(logits.shape)}    n={n}\n"
                f"  Pass logits=lambda output: ..., samples first."
            )
        self.n_measured += n
        self._bad_logits.add("", torch.isfinite(logits.amax(-1)).all(), batch.number)
        self._bad_logits.check(wait=False)
        own = Answers.of(
            logits, self._y.masks, labels, batch.number, of_decoder=self._y.has_decoder
        )
        self._own.add(own, logits)
        held_untrained: dict[str, Held] = {}
        if self._untrained is not None:
            held_untrained = self._untrained.run(self._untrained.prepared(batch))[0]
        for (stitch, pair), mapped in self._maps.items():
            held = (held_untrained if stitch == UNTRAINED else held_x)[pair[0]]
            stitched = self._y.run_stitched(for_y, held_y[pair[1]], _replacement(held, mapped))
            answers = logits_in(stitched, self._logits)
            self._scores.setdefault((stitch, pair), Scores()).add(own, answers)

    # -- the result ------------------------------------------------------------------------------

    def dataset(self) -> xarray.Dataset:
        """Return the scores of all pairs; see :func:`repsim.stitch`."""
        assert self._layers is not None
        if not self.n_measured:
            raise InputError(
                f"stitch: data ended before a batch was measured.\n"
                f"  fitted: {self.n_fitted} samples\n"
                f"  Is its length right? Otherwise pass fit=, other batches to fit on."
            )
        self._bad_logits.check(wait=True)
        if self._classes[0] and self._classes[1] and not self._classes[0] & self._classes[1]:
            warn(
                "stitch: the maps were fitted on other classes than they are measured on.\n"
                "  Is the data sorted by class? Shuffle it, or pass fit=."
            )
        own = self._own.result()
        names: list[str] = [
            name for name in ("kl", "disagreement", "loss", "accuracy") if name in own
        ]
        shape = len(self._stitches), len(self._layers[0]), len(self._layers[1])
        variables: dict[str, Any] = {}
        for name in names:
            variables[name] = np.full(shape, np.nan)
            variables[f"{name}_standard_error"] = np.full(shape, np.nan)
        places = {pair: divmod(at, shape[2]) for at, pair in enumerate(self._pairs())}
        for (stitch, pair), scores in self._scores.items():
            for name, (mean, error) in scores.result().items():
                where = (self._stitches.index(stitch), *places[pair])
                variables[name][where] = mean
                variables[f"{name}_standard_error"][where] = error
        for name in ("loss", "accuracy"):
            if name in own:
                variables[f"own_{name}"] = own[name][0]
        lost = {pair for (_, pair), scores in self._scores.items() if scores.is_nan}
        if lost:
            x, y = min(lost)
            warn(
                f"stitch: stitched outputs of {len(lost)} pairs of layers are not finite, NaN "
                f"there, for example {x!r} → {y!r}.",
                DegenerateWarning,
            )
        coords = {"stitch": self._stitches, "layer_x": self._layers[0], "layer_y": self._layers[1]}
        return STITCHING.dataset(variables, coords)

    # -- what both share -------------------------------------------------------------------------

    def _pairs(self) -> list[Pair]:
        assert self._layers is not None
        return [(x, y) for x in self._layers[0] for y in self._layers[1]]

    def _split(self, batch: Batch) -> tuple[Batch, Any]:
        given, labels = found_labels(batch.value, self._labels)
        return Batch(batch.operation, given, batch.number), labels

    def _note(self, labels: Any, half: int) -> None:
        if labels is not None and getattr(labels, "ndim", 0) == 1:
            known = values_of(labels) if isinstance(labels, Tensor) else labels
            self._classes[half] |= set(known.tolist())

    def _check_layers(self, batch: Batch, held_x: dict[str, Held], held_y: dict[str, Held]) -> None:
        assert self._layers is not None
        for side, names, held in zip("xy", self._layers, (held_x, held_y), strict=True):
            if missing := [name for name in names if name not in held]:
                raise InputError(
                    f"stitch: every batch must run the same layers.\n"
                    f"  did not run in batch {batch.number}: {missing[:8]} of model_{side}\n"
                    f"  Leave out layers that run for some inputs only."
                )
        n_x, n_y = (len(next(iter(held.values())).values) for held in (held_x, held_y))
        if n_x != n_y:
            raise InputError(
                f"stitch: both models must see the same samples.\n"
                f"  batch {batch.number}: {n_x} samples in model_x, {n_y} in model_y\n"
                f"  Does prepare_x= or prepare_y= drop some?"
            )


def _replacement(held: Held, mapped: AffineMap | None) -> Any:
    def replace(form: Form) -> Tensor:
        values = brought(held, form)
        return values if mapped is None else mapped(values)

    return replace


def _not_finite(layer: str, number: int) -> NonFiniteError:
    return NonFiniteError(
        f"stitch: layer {layer} must be finite.\n"
        f"  batch {number} (counted from 0) has NaN or infinity\n"
        f"  Half precision overflows at 65504: try float32."
    )


def _not_finite_logits(_name: str, number: int) -> NonFiniteError:
    return NonFiniteError(
        f"stitch: the logits of model_y must be finite.\n"
        f"  batch {number} (counted from 0) has NaN or infinity\n"
        f"  Half precision overflows at 65504: try float32."
    )
