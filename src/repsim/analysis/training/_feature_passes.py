"""Any measure of the same layers of several models, from the features of all samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim._errors import InputError
from repsim._typing import Array
from repsim.analysis._extract_rows import Seen
from repsim.analysis.features._choice import Measured
from repsim.analysis.features._keepers import InMemory
from repsim.analysis.features._record import Outputs, record
from repsim.analysis.features._side import FeatureSide
from repsim.analysis.run._drive import Batch
from repsim.analysis.run._token_samples import TokenSamples
from repsim.analysis.run.ranks import SampleIds
from repsim.analysis.training._checkpoints import of_steps
from repsim.analysis.training._passes import Passes, Round, all_active
from repsim.measures.pairs import (
    PairItems,
    Rows,
    Values,
    attrs_of_measure,
    label_of_pair,
    values_of_pairs,
    warn_of_highest,
)
from repsim.results import BETWEEN_STEPS, TRAJECTORY

if TYPE_CHECKING:
    import xarray

__all__ = ["FeaturePasses"]

REFERENCE = "reference"


class FeaturePasses(Passes[FeatureSide]):
    """Any measure, from features that are kept for one pass.

    Parameters
    ----------
    side, tokens
        As in :class:`Passes`.
    data, progress, sample_ids
        As in :func:`repsim.trajectory`.
    measured : Measured
        The measure and its options.
    memory : int
        The most bytes of the features of one pass.
    """

    def __init__(
        self,
        side: Callable[..., FeatureSide],
        tokens: Callable[[], TokenSamples | None],
        data: Iterable[Any],
        progress: bool,
        measured: Measured,
        memory: int,
        sample_ids: SampleIds | None,
    ) -> None:
        super().__init__(side, tokens)
        self._data, self._progress, self._memory = data, progress, memory
        self._sample_ids = sample_ids
        self._measured = measured
        self._operation = f"trajectory({measured.measure.name!r})"
        self._values: dict[float | None, dict[str, Values]] = {}
        self._floors: dict[str, Array] = {}

    def _run(
        self,
        these: Round,
        main: FeatureSide,
        sides: Sequence[FeatureSide],
        tokens: TokenSamples | None,
    ) -> dict[str, int]:
        named = {} if these.label is None else {REFERENCE: main}
        named |= dict(zip(these.names, sides, strict=True))
        running = list(dict.fromkeys([main, *sides]))

        def run(batch: Batch) -> Outputs:
            main.start_tokens(batch)
            found = {side: (side.run_recorded(batch), side.rows) for side in running}
            return {name: found[side] for name, side in named.items()}

        seen = Seen("trajectory", self._sample_ids)
        keeper = InMemory("trajectory", seen, tokens, self._memory, self._data)
        models = [side.model for side in running]
        record(
            "trajectory",
            self._data,
            models,
            all_active(running),
            run,
            keeper,
            seen,
            progress=self._progress,
        )
        kept = keeper.end({})
        self.duplicates = seen.duplicates
        self._compare(these, kept.layers)
        return {"n_samples": kept.n_samples, "n_batches": kept.n_batches}

    def _compare(self, these: Round, features: Mapping[str, Any]) -> None:
        """Compute the values of one pass, layer by layer."""
        by_model = {
            name: {
                key.removeprefix(f"{name}/"): x
                for key, x in features.items()
                if key.startswith(f"{name}/")
            }
            for name in [*([] if these.label is None else [REFERENCE]), *these.names]
        }
        first = next(iter(by_model.values()))
        for name, layers in by_model.items():
            if layers.keys() != first.keys():
                raise InputError(
                    f"trajectory: all models must have the same layers.\n"
                    f"  {next(iter(by_model))} has {len(first)}, {name} has {len(layers)}\n"
                    f"  Compare models of one architecture, or choose layers= that all have."
                )
        keys = [None] if these.label is None else list(these.models)
        for key in keys:
            self._values[key] = {}
        for layer in first:
            values = self._of_layer(these, layer, by_model)
            if these.label is None:
                self._values[None][layer] = values
            else:
                for step, value in zip(these.models, values[:, 0], strict=True):
                    self._values[step][layer] = value

    def _of_layer(
        self, these: Round, layer: str, by_model: Mapping[str, Mapping[str, Any]]
    ) -> Values:
        measure, settings = self._measured.measure, self._measured.settings
        items = PairItems(self._operation, np, measure, settings)
        fewest = measure.fewest(**settings)
        rows = {
            name: Rows.stored(self._operation, layers[layer], f"layer {layer!r} of {name}", fewest)
            for name, layers in by_model.items()
        }
        xs = [rows[name] for name in these.names]
        together = these.label is None
        ys = xs if together else [rows[REFERENCE]]
        return values_of_pairs(
            measure,
            settings,
            xs,
            ys,
            items.pair,
            label_of_pair,
            self._floors,
            half=together and measure.symmetric,
        )

    def dataset(self, steps: Sequence[float], *, together: bool) -> xarray.Dataset:
        """Return the values of the measure."""
        measure = self._measured.measure
        warn_of_highest(self._operation, measure, self._floors)
        layers = list(next(iter(self._values.values())))
        described = attrs_of_measure(measure, self._measured.settings)
        if together:
            values = np.stack([self._values[None][layer] for layer in layers], axis=-1)
            at = {"step_x": of_steps(steps), "step_y": of_steps(steps), "layer": layers}
            result = BETWEEN_STEPS.dataset({}, at)
        else:
            values = np.array([[self._values[s][layer] for layer in layers] for s in steps])
            at = {"step": of_steps(steps), "layer": layers}
            result = TRAJECTORY.dataset({}, at)
        return result.assign({measure.name: (tuple(at), values, described)})
