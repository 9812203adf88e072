"""Which axes of a residual sum hold samples, tokens and channels, and its prefix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repsim._errors import CaptureError, InputError
from repsim.analysis.residual._stream_samples import Shapes, sample_axes
from repsim.analysis.run._drive import Batch, Forward
from repsim.capture import Join, ResidualSite, SiteFinder, unwrap
from repsim.capture.tokens import (
    Declared,
    ModelInput,
    PatchOrder,
    Queries,
    TokenOptions,
    declared_prefix,
    modules_around,
    prefix_of_sequence,
)

__all__ = ["Layout", "Layouts", "StreamAxes"]


@dataclass(frozen=True)
class Layout:
    """The axes of samples, tokens and channels of the summands of a site.

    Attributes
    ----------
    samples : int
        The number of samples. Axis `batch` may hold the tokens of each as further rows.
    """

    batch: int
    channels: int
    positions: tuple[int, ...]
    n_prefix: int
    samples: int

    def tokens(self, x: Tensor) -> Tensor:
        """Return (samples, tokens, channels), in float32 at least."""
        x = x.movedim((self.batch, self.channels), (0, -1))
        x = x.reshape(self.samples, -1, x.shape[-1])
        return x.to(torch.promote_types(x.dtype, torch.float32))


class StreamAxes:
    """Find the axes of samples and channels of a tensor of the residual stream.

    Parameters
    ----------
    operation, what : str
        For errors: the analysis, and what has the tensor ("site", "block").
    batch_dim, channel_dim : int, optional
        The options of the caller.
    """

    def __init__(
        self, operation: str, what: str, batch_dim: int | None, channel_dim: int | None
    ) -> None:
        self._operation, self._what = operation, what
        self._batch_dim, self._channel_dim = batch_dim, channel_dim
        self._found: Mapping[str, int] = {}

    def learn(self, found: Mapping[str, int]) -> None:
        """Take the axes that hold the samples, by module, from forwards of few samples."""
        self._found = found

    @property
    def is_declared(self) -> bool:
        """Whether the caller passed the axis of the samples."""
        return self._batch_dim is not None

    def of(
        self,
        label: str,
        module: str,
        shape: tuple[int, ...],
        channels: int | None,
        finder: SiteFinder,
    ) -> tuple[int, int]:
        """Return the axes, or raise a CaptureError or an InputError that asks for them.

        Parameters
        ----------
        label : str
            What has the tensor, for errors.
        module : str
            Its name without the number of the call.
        shape : tuple of int
            Its shape.
        channels : int or None
            The axis of the features, if the operations before show it.
        finder : SiteFinder
            What the forward showed.
        """
        batch = self._batch(label, module, shape, finder)
        # A text may have several streams, (B, N, streams, D) or (B, streams, N, D).
        is_text = not finder.has_images and not finder.text_lengths.isdisjoint(shape[1:-1])
        return batch, self._channels(label, shape, channels, batch, is_text=is_text)

    def _batch(self, label: str, module: str, shape: tuple[int, ...], finder: SiteFinder) -> int:
        if self._batch_dim is not None:
            return self._axis("batch_dim", self._batch_dim, label, shape)
        found = self._found.get(module, 0)
        if 0 < found < len(shape):  # axis 0 is also what grows where the sequence is cut
            return found
        if finder.sequence_first:
            raise CaptureError(
                f"{self._operation}: axis 0 of {self._what} {label!r} {shape} may be tokens, "
                "because a module with batch_first=False ran.\n"
                "  Pass batch_dim=1 if the samples are on axis 1, batch_dim=0 if on axis 0."
            )
        if finder.batch_size not in (None, shape[0]):
            raise CaptureError(
                f"{self._operation}: axis 0 of {self._what} {label!r} is not the batch.\n"
                f"  its shape: {shape}    the model's input: n={finder.batch_size}\n"
                "  Pass batch_dim= the axis to average over (batch_dim=0 for this one as it is)."
            )
        return 0

    def _channels(
        self,
        label: str,
        shape: tuple[int, ...],
        channels: int | None,
        batch: int,
        *,
        is_text: bool,
    ) -> int:
        ndim = len(shape)
        if ndim < 2:
            raise CaptureError(
                f"{self._operation}: {self._what} {label!r} has no axis beside the batch: {shape}."
                "\n  Pass inputs with a batch axis: x[None] for a single sample."
            )
        if self._channel_dim is not None:
            axis = self._axis("channel_dim", self._channel_dim, label, shape)
        elif channels is not None and channels != batch:
            axis = channels
        else:
            axis = 1 if ndim > 3 and batch == 0 and not is_text else ndim - 1
        if axis == batch:
            raise InputError(
                f"{self._operation}: axis {axis} of {self._what} {label!r} {shape} cannot hold "
                "both samples and channels.\n  Pass batch_dim= and channel_dim= that differ."
            )
        return axis

    def _axis(self, option: str, axis: int, label: str, shape: tuple[int, ...]) -> int:
        ndim = len(shape)
        if not -ndim <= axis < ndim:
            raise InputError(
                f"{self._operation}: {option}={axis}, and the shape at {self._what} {label!r} is "
                f"{shape}."
            )
        return axis % ndim


class Layouts:
    """Find the layout of a site; see :func:`repsim.residual_ratios` for the rules."""

    def __init__(
        self,
        model: nn.Module,
        options: TokenOptions,
        batch_dim: int | None,
        channel_dim: int | None,
    ) -> None:
        self._root = unwrap(model)
        self._declared = Declared.by(model)
        self._options = options
        self._axes = StreamAxes(options.operation, "site", batch_dim, channel_dim)
        self._queries, self._given = Queries(model), ModelInput()
        self._order = PatchOrder(model)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Let forwards tell patches from learned queries, and from tokens that follow them."""
        with self._queries.watching(), self._order.watching():
            yield

    def start(self, batch: Any) -> None:
        """Start the next batch, in the form that the model gets."""
        self._queries.clear()
        self._order.start()
        self._given = ModelInput.of(batch)

    def ask(self, model: nn.Module, batch: Batch, forward: Forward | None) -> None:
        """Find by forwards of few samples which axes hold them, if the caller does not say."""

        def shapes(run: Callable[[], object]) -> Shapes:
            found: dict[str, list[tuple[int, ...]]] = defaultdict(list)
            with SiteFinder(model, lambda site, _, __: found[site.label].append(site.shape)):
                run()
            return found

        if not self._axes.is_declared:
            self._axes.learn(sample_axes(model, batch, forward, shapes))

    def of(self, site: ResidualSite, join: Join, finder: SiteFinder) -> Layout:
        """Return the layout, or raise a CaptureError or an InputError that asks for it."""
        shape = site.shape
        if (n := self._rows_of_texts(shape, finder)) is not None:
            tokens = shape[0] // n
            n_prefix = self._n_prefix(site, join, tokens, finder.text_lengths)
            return Layout(0, 1, (tokens,), n_prefix, n)
        batch, channels = self._axes.of(site.label, site.label, shape, join.channels, finder)
        positions = tuple(size for i, size in enumerate(shape) if i not in (batch, channels))
        sequence = len(positions) == 1 and channels == len(shape) - 1
        lengths = finder.text_lengths
        n_prefix = self._n_prefix(site, join, positions[0], lengths) if sequence else 0
        return Layout(batch, channels, positions, n_prefix, shape[batch])

    def _rows_of_texts(self, shape: tuple[int, ...], finder: SiteFinder) -> int | None:
        """Return n if the rows of (n · tokens, channels) are the tokens of n texts, as in OPT."""
        n = finder.batch_size
        if self._axes.is_declared or len(shape) != 2 or not n or shape[0] == n or shape[0] % n:
            return None
        return n if shape[0] // n in finder.text_lengths else None

    def _n_prefix(
        self, site: ResidualSite, join: Join, n_tokens: int, text_lengths: set[int]
    ) -> int:
        given = self._options.prefix_of(site.label, site.block)
        if given is not None and given > n_tokens:
            raise InputError(
                f"residual_ratios: prefix={given}, and site {site.label!r} has {n_tokens} tokens."
            )
        found = prefix_of_sequence(
            n_tokens,
            join.maps,
            prefix=given,
            declared=self._declared.named,
            around=declared_prefix(modules_around(self._root, site.block)),
        )
        is_text = n_tokens in text_lengths
        if found is None and is_text:
            return 0
        why = "" if is_text else self._no_prefix(site, n_tokens)
        # With a text of as many tokens, a prefix that only a map shows may be that of an image.
        if found is None or (given is None and (why or (found and is_text))):
            sizes = ", ".join(f"{h}×{w}" for h, w in dict.fromkeys(join.maps[-4:]))
            raise InputError(
                f"residual_ratios: which of the {n_tokens} tokens of site {site.label!r} are "
                "spatial is unknown.\n"
                f"  the convolutions before put out: {sizes or 'nothing'}"
                f"{'    a text has as many tokens' if is_text else why}\n"
                "  Pass prefix= the number of tokens before the spatial ones (CLS, registers), 0 "
                "if there are none; or a mapping from site or block to it."
            )
        return found

    def _no_prefix(self, site: ResidualSite, n: int) -> str:
        """Return why the first of the n tokens of a site are no prefix, or nothing."""
        if self._queries.hold(site.block, n, self._given):
            return "    they are queries that the model learned"
        order = self._order.of(site.label, n)
        return f"    {order.problem}" if order is not None and order.after else ""
