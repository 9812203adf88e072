"""The batch axis of a layer's output: declared, found by a probe, or checked by a rule of sizes.

Comparing tokens as if they were samples would silently give a wrong answer. Without a probe, axis 0
of an output must therefore have the size of the input's axis 0. In a sequence-first model, axis 0
of both is the sequence, so the inputs of modules that declare ``batch_first=False`` are checked
too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import replace

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from repsim._errors import CaptureError
from repsim.capture._containers import tensors_in
from repsim.capture._output import Select, UnusableOutput
from repsim.capture.layers._select import Selection
from repsim.capture.samples._declared import BatchDim, declared_axes
from repsim.capture.samples._probe import Evidence, Probe, SampleAxis, sequence_first_modules
from repsim.capture.samples._rows import Shapes, may_be_rows

__all__ = ["BatchAxis"]


class BatchAxis:
    """The batch axes in one forward.

    Parameters
    ----------
    batch_dim : int, mapping of str to int, or None
        The batch axis that the caller declares. It is trusted.
    layers : Selection
        The chosen layers.
    select : callable, int or str, optional
        Which tensor of an output.

    Raises
    ------
    InputError
        `batch_dim` is neither.
    LayerNotFoundError
        A name or glob of the mapping matches none of the chosen layers.
    """

    def __init__(
        self, batch_dim: BatchDim, layers: Selection, select: Select | None = None
    ) -> None:
        self._layers, self._select = layers, select
        self._declared = declared_axes(batch_dim, layers.names)
        self._undeclared = [name for name in layers.names if name not in self._declared]
        self._evidence: Evidence | None = None
        self._steady: dict[tuple[str, int], Shapes] = {}
        self._rows: dict[tuple[str, int], int] = {}
        self._pinned: int | None = None
        self._likely: int | None = None
        self._input: tuple[int, ...] | None = None
        self._inputs: list[tuple[int, ...]] = []
        self._sequence_first: list[tuple[str, int, int]] = []

    @property
    def is_assumed(self) -> bool:
        """Whether the batch axis of any layer is not declared."""
        return bool(self._undeclared)

    def probe(self) -> Probe:
        """Return a new probe of these layers."""
        return Probe(self._layers, self._select)

    def learn(self, evidence: Evidence) -> None:
        """Let the evidence of a probe decide, for layers whose axis is not declared."""
        self._evidence = evidence

    def watch(self, active: Callable[[], bool]) -> Iterator[RemovableHandle]:
        """Place hooks one by one that check modules with ``batch_first=False``."""

        def hook(name: str) -> Callable[[nn.Module, object, object], None]:
            def look(_module: nn.Module, args: object, kwargs: object) -> None:
                if active():
                    self.saw_sequence_first(name, args, kwargs)

            return look

        for name, module in sequence_first_modules(self._layers.root):
            yield module.register_forward_pre_hook(hook(name), with_kwargs=True)

    def reset(self, size: int | None = None, *, likely: int | None = None) -> None:
        """Forget the last forward.

        Parameters
        ----------
        size : int, optional
            The number of samples; until the next reset it overrides the size of inputs.
        likely : int, optional
            Which number of samples is right if layers that a probe saw disagree.
        """
        self._pinned, self._likely = size, likely
        self._input = None
        self._sequence_first.clear()

    def read_input(self, args: object, kwargs: object) -> None:
        """Take the batch size from the first tensor that the model is called with."""
        tensors = [t for t in tensors_in((args, kwargs)) if t.dim() > 0]
        self._inputs = [tuple(t.shape) for t in tensors if t.dim() > 1 and not t.is_nested]
        first = next(iter(tensors), None)
        self._sequence_first.clear()
        if first is None:
            self._input = None
        else:
            # A nested tensor has no shape, but it has a first axis.
            self._input = (first.size(0),) if first.is_nested else tuple(first.shape)

    def saw_sequence_first(self, name: str, args: object, kwargs: object) -> None:
        """Record the input of a module with ``batch_first=False``, (tokens, batch, D).

        Raises
        ------
        CaptureError
            The model's own input has its samples on axis 1, or may have.
        """
        first = next(tensors_in((args, kwargs)), None)
        if self._evidence is not None:
            return
        if first is None or first.dim() != 3 or first.is_nested:
            return  # unbatched or packed: no information
        tokens, batch = int(first.shape[0]), int(first.shape[1])
        self._sequence_first.append((name, tokens, batch))
        size = self._size
        if self._input is None or size is None or len(self._input) < 2:
            return
        if self._input[1] != batch:
            return  # the samples are not on axis 1 of the input; the size of each output decides
        # If batch and sequence have the same length, sizes cannot tell them apart, unless the input
        # is clearly not a sequence, such as three images (3, 3, H, W) in a model of sequence-first
        # blocks.
        square = self._input[0] == batch and (tokens == batch or len(self._input) <= 3)
        if batch == size and not square:
            return
        doubt = "axis 0 may be the sequence" if batch == size else "axis 0 is not the batch"
        raise CaptureError(
            f"Recorder: the model seems to take its input sequence first, so {doubt}.\n"
            f"  {name!r} has batch_first=False and was given {tuple(first.shape)}: "
            f"{tokens} tokens of {batch} samples\n"
            f"  the model's input: {self._input} → n={size}\n"
            "  Pass batch_dim=1 if the samples are on axis 1, batch_dim=0 if they really are on "
            f"axis 0{self._for_all()}."
        )

    def first(self, tensor: Tensor, layer: str, call: int = 0) -> Tensor:
        """Return `tensor` with its batch axis in front, or itself if it is there already.

        Raises
        ------
        UnusableOutput
            That axis does not exist, has another size than the batch, or there is none.
        """
        if (dim := self._declared.get(layer)) is None:
            if known := self._found(layer, call):
                return self._as_found(tensor, (layer, call), next(iter(known)))
            self._check_assumed(tensor, layer)
            return tensor
        if not -tensor.ndim <= dim < tensor.ndim:
            raise UnusableOutput(
                f"Recorder: layer {layer!r} has no axis {dim} for batch_dim= to mean.\n"
                f"  it returned: {tuple(tensor.shape)}\n"
                "  Give each layer its own: batch_dim={name or glob: axis}.",
                brief=str(tuple(tensor.shape)),
            )
        if self._pinned is not None and tensor.shape[dim] != self._pinned:
            raise self._not_declared(layer, tuple(tensor.shape), dim)
        # Return the same object if no axis moves, because a transform may recognise it.
        return tensor if dim in (0, -tensor.ndim) else tensor.movedim(dim, 0)

    def contradiction(
        self, layer: str, shape: tuple[int, ...], counts: Set[int]
    ) -> UnusableOutput | None:
        """Return what is wrong with an output, batch first, that only the whole forward shows.

        Parameters
        ----------
        layer : str
            Its layer.
        shape : tuple of int
            Its shape.
        counts : set of int
            The numbers of samples of all outputs of the forward.
        """
        if layer in self._declared:
            # A declared axis is trusted as long as all layers have the same samples.
            likely = counts & self._allowed_sizes()
            if not likely or shape[0] in likely:
                return None
            return self._not_declared(layer, shape, self._declared[layer])
        if self._evidence is not None:
            likely_n = self._size if self._likely is None else self._likely
            if shape[0] == likely_n or likely_n not in counts:
                return None
            return self._not_as_found(layer, shape, f"n={likely_n}")
        if len(shape) < 3:
            return None
        for name, tokens, batch in self._sequence_first:
            if shape[:2] == (tokens, batch) and self._size in (None, tokens):
                return UnusableOutput(
                    f"Recorder: axis 0 of layer {layer!r} may be tokens, not samples.\n"
                    f"  it returned: {shape}; {name!r} has batch_first=False and was given "
                    f"{tokens} tokens of {batch} samples\n"
                    f"  Pass batch_dim={{{layer!r}: 1}} if the samples are on axis 1, 0 if on "
                    "axis 0; or use a batch size other than the number of tokens.",
                    brief=f"{shape}, perhaps sequence first",
                )
        return None

    @property
    def _size(self) -> int | None:
        if self._pinned is not None or self._input is None:
            return self._pinned
        return self._input[0]

    def rows_of(self, layer: str, call: int) -> int:
        """Return how many rows of a call are of one sample: 1, or its windows, crops, patches."""
        return self._rows.get((layer, call), 1)

    def _found(self, layer: str, call: int) -> Set[SampleAxis | None]:
        """Return the evidence about a call, or nothing.

        A call beyond those of the probe is like the others, if all of them are alike.
        """
        evidence = self._evidence or {}
        if (layer, call) in evidence:
            return {evidence[layer, call]}
        others = {found for (name, _), found in evidence.items() if name == layer}
        return others if len(others) == 1 else set()

    def _as_found(self, tensor: Tensor, key: tuple[str, int], found: SampleAxis | None) -> Tensor:
        layer, shape = key[0], tuple(tensor.shape)
        if found is None:
            raise UnusableOutput(
                f"Recorder: layer {layer!r} follows no sample.\n"
                f"  it returned: {shape}, and no axis of it, or of other layers in its list, grew "
                f"with the samples when the model ran on 2 and on 3 of them\n"
                f"  Leave it out, or say which axis holds samples: batch_dim={{{layer!r}: axis}}.",
                brief=f"{shape} follows no sample",
                # For example a position embedding, the same for every sample, and not a layer that
                # runs more often with more samples.
                quiet=shape[0] == 1 and key in (self._evidence or {}),
            )
        length = shape[found.axis] if found.axis < len(shape) else 0
        n, rows = self._divided(key, length, found.rows)
        per_sample = "" if rows == 1 else f" of {rows} rows each"
        if length != n * rows or n == 0:
            if rows == 0:
                per_sample = " of equal rows, which grow with the length of the input"
            expected = f"n={n}{per_sample} on axis {found.axis}"
            raise self._not_as_found(layer, shape, expected)
        if found.apart is None:
            raise UnusableOutput(
                f"Recorder: which rows of layer {layer!r} are of one sample is unknown.\n"
                f"  it returned: {shape}, {rows} rows for each of n={n} samples\n"
                "  Their values depend on the other samples, so their order is unknown. Put them "
                "in order with select=, or leave the layer out.",
                brief=f"{shape}: which of {rows} rows are of one sample is unknown",
            )
        self._rows[key] = rows
        return replace(found, rows=rows).first(tensor, n)

    def _divided(self, key: tuple[str, int], length: int, rows: int) -> tuple[int, int]:
        """Return the number of samples on an axis, and of the rows of each.

        Texts of another length have another number of rows. This is taken for granted only if the
        rows of a whole batch were as many as the probe had seen: those of experts vary at random.
        The rows must grow with the length of the input, because those of texts without their
        padding are also a multiple of the samples now and then.
        """
        known = self._size if self._likely is None else self._likely
        if rows > 1 and key in self._steady and known and length % known == 0:
            now = length // known
            fits = may_be_rows(now, self._per_sample(known), rows, self._steady[key])
            return known, now if fits else 0
        n = length // rows if self._pinned is None else self._pinned
        if n == known and length == n * rows:
            self._steady[key] = self._per_sample(n)
        return n, rows

    def _per_sample(self, n: int) -> Shapes:
        return tuple((shape[0] / n, *shape[1:]) for shape in self._inputs)

    def _not_as_found(self, layer: str, shape: tuple[int, ...], expected: str) -> UnusableOutput:
        return UnusableOutput(
            f"Recorder: layer {layer!r} does not hold the samples of the batch.\n"
            f"  it returned: {shape}    expected: {expected}\n"
            f"  It did when the model ran on 2 and on 3 samples. Pass batch_size=, "
            f"batch_dim={{{layer!r}: axis}}, or leave the layer out.",
            brief=f"{shape}, expected {expected}",
        )

    def _not_declared(self, layer: str, shape: tuple[int, ...], dim: int) -> UnusableOutput:
        return UnusableOutput(
            f"Recorder: axis {dim} of layer {layer!r} is not the batch.\n"
            f"  it returned: {shape}    {self._source()}\n"
            "  Give each layer its own: batch_dim={name or glob: axis}.",
            brief=str(shape),
        )

    def _check_assumed(self, tensor: Tensor, layer: str) -> None:
        size, shape = self._size, tuple(tensor.shape)
        if size is None or shape[0] == size:
            return
        elsewhere = [axis for axis, length in enumerate(shape) if length == size]
        repair = (
            f"Pass batch_dim={elsewhere[0]} or batch_dim={{{layer!r}: {elsewhere[0]}}}"
            if elsewhere
            else f"No axis has {size}: pass batch_dim={{{layer!r}: 0}} if axis 0 holds samples"
        )
        raise UnusableOutput(
            f"Recorder: axis 0 of layer {layer!r} is not the batch.\n"
            f"  it returned: {shape}    {self._source()}\n"
            f"  {repair}, or leave the layer out.\n"
            "  Where samples and tokens share an axis, select= can part them.",
            brief=str(shape),
            quiet=shape[0] == 1,  # for example a position embedding: the same for every sample
        )

    def _allowed_sizes(self) -> set[int]:
        if self._pinned is not None:
            return {self._pinned}
        if self._input is None:
            return set()
        axes = {0, *self._declared.values()}
        return {self._input[a] for a in axes if -len(self._input) <= a < len(self._input)}

    def _source(self) -> str:
        if self._pinned is not None:
            return f"expected: n={self._pinned}"
        sizes = " or ".join(map(str, sorted(self._allowed_sizes())))
        return f"the model's input: {self._input} → n={sizes}"

    def _for_all(self) -> str:
        return f"; these layers have none: {self._undeclared[:4]}" if self._declared else ""
