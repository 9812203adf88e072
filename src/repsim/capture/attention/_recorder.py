"""Recording the attention of an unmodified torch model, however it is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

from torch import nn

from repsim._errors import CaptureError, InputError, LayerNotFoundError, warn
from repsim.capture._hooks import eagerly, in_backward, is_scripted, ordinary_modes
from repsim.capture.attention._call import AttentionCall
from repsim.capture.attention._eager import EagerAttention
from repsim.capture.attention._frames import Frames
from repsim.capture.attention._grouped import unpacked
from repsim.capture.attention._layout import attends_over, find_heads
from repsim.capture.attention._mode import AttentionMode, Seen
from repsim.capture.attention._problems import (
    WHY_UNMATCHED,
    problems_of,
    why_absent,
    why_nothing,
)
from repsim.capture.attention._rows import Scratch, shared_heads
from repsim.capture.layers._scripted import refuse_scripted
from repsim.capture.layers._select import Layer, Layers, select_layers
from repsim.capture.layers._walk import kind_of
from repsim.capture.tokens._evidence import ModelInput
from repsim.capture.tokens._rules import Convolution, Move

__all__ = ["AttentionRecorder"]


class AttentionRecorder:
    """Pass every attention call of a model's forward to a function, while a ``with`` block runs.

    >>> import torch
    >>> from torch import nn
    >>> net = nn.TransformerEncoderLayer(8, nhead=2, batch_first=True).eval()
    >>> def handle(call):
    ...     for part, weights in call.weights(chunk=4):
    ...         print(call.label, part, tuple(weights.shape), weights.sum(-1).mean().item())
    >>> with torch.no_grad(), AttentionRecorder(net, handle=handle):
    ...     _ = net(torch.ones(3, 6, 8))
    self_attn slice(0, 4, None) (3, 2, 4, 6) 1.0
    self_attn slice(4, 6, None) (3, 2, 2, 6) 1.0

    It sees ``scaled_dot_product_attention`` (fused kernels), ``flex_attention``,
    ``nn.MultiheadAttention`` and ``nn.TransformerEncoder`` (their fast paths too), and attention
    written out as a softmax over the last axis whose result multiplies the values. Weights are
    computed only on request, in chunks of queries, so the full batch × heads × queries × keys array
    is never in memory.

    Parameters
    ----------
    model : torch.nn.Module
        The model, in any wrapper. All hooks and modes are removed afterwards, and train/eval flags,
        device and random state are not touched.
    layers : str, re.Pattern, module type, callable, or a list of these, default ``"*"``
        The modules whose forward contains the attention, such as ``"blocks.0.attn"``, chosen as in
        :func:`select_layers`. A module with an exact name must contain attention.
    handle : callable
        ``handle(call)`` is called for every :class:`AttentionCall`, in execution order, right after
        its computation and before the model continues, without gradients and autocast.

    Raises
    ------
    LayerNotFoundError
        A layer does not exist, or a layer with an exact name showed no attention.
    CaptureError
        No attention was seen; the message says why. Or the model has attention that cannot be seen:
        scripted or traced modules, packed texts, nested tensors, forwards in other threads.

    Warns
    -----
    RepsimWarning
        A softmax looks like attention, but its weights do not multiply the values in a matrix
        product: talking heads change them first, and deformable attention samples values. Issued
        once per layer.

    Notes
    -----
    The outputs of the model have the same bits as without the recorder, with one exception: the
    fast paths of ``nn.MultiheadAttention`` and ``nn.TransformerEncoderLayer`` are switched off, as
    with any hooks, so there outputs agree only up to rounding. If ``nn.TransformerEncoder`` would
    have packed its input without padding, padded positions are computed as in training instead of
    being 0.

    Compiled code runs eagerly inside the block. Modules that activation checkpointing runs again in
    the backward pass are not recorded twice. Attention in other forms (custom kernels, scripted
    functions, weights that are not a softmax) is not seen.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Layers = "*",
        *,
        handle: Callable[[AttentionCall], None],
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(
                f"AttentionRecorder: model must be a torch.nn.Module.\n  got {kind_of(model)}"
            )
        if not callable(handle):
            raise InputError(f"AttentionRecorder: handle must be callable.\n  got {handle!r}")
        self._handle = handle
        self._frames = Frames(model)
        # "*" includes the root, which has no name, because a model may be one attention layer.
        self._chosen: dict[str, Layer] | None = None
        if not (isinstance(layers, str) and layers == "*"):
            self._chosen = {layer.name: layer for layer in select_layers(model, layers)}
        else:
            refuse_scripted(model)
        self._stack: ExitStack | None = None
        self._warned: set[str] = set()
        self._most: Counter[str] = Counter()
        self._settled = False
        self._scratch = Scratch()

        # Of the latest forward:
        self.eager = EagerAttention()
        self.convolutions: list[Convolution] = []
        self.moves: list[Move] = []
        self._calls: Counter[str] = Counter()
        self._not_chosen: set[str] = set()
        self._unclear: list[tuple[str, str]] = []
        self._handed = 0

    # -- the block -------------------------------------------------------------------------------

    def __enter__(self) -> AttentionRecorder:
        if self._stack is not None:
            raise CaptureError("AttentionRecorder: already recording.\n  Make a second to nest.")
        self.clear()
        self._settled = False
        with ExitStack() as stack:
            stack.enter_context(eagerly())
            root = self._frames.root
            for handle in self._frames.hooks():
                stack.callback(handle.remove)
            if not is_scripted(root):
                # Before the hooks of the frames, which put the root on the stack of a new forward.
                hook = root.register_forward_pre_hook(self._start, prepend=True)
                stack.callback(hook.remove)
                stack.callback(root.register_forward_hook(self._finish).remove)
            stack.enter_context(AttentionMode(self))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()
        if exc_type is None and not self._settled:
            self._settle()
        self._frames.clear()
        self.eager.clear()
        self._scratch.clear()

    def clear(self) -> None:
        """Begin a new forward that does not call the model itself."""
        self._frames.clear()
        self._new_forward()

    def label(self, name: str, call: int) -> str:
        """Name a call by its module, with ``:k`` if the module holds several calls in a forward."""
        return f"{name}:{call}" if self._most[name] > 1 else name

    def requires(self, name: str, call: int) -> bool:
        """Whether a call was requested by exact name."""
        return (
            self._chosen is not None and name in self._chosen and self._chosen[name].requires(call)
        )

    def __repr__(self) -> str:
        chosen = "all" if self._chosen is None else str(len(self._chosen))
        return (
            f"<AttentionRecorder of {type(self._frames.root).__name__}: {chosen} layers chosen, "
            f"{self._handed} calls>"
        )

    # -- what the mode calls -----------------------------------------------------------------------

    @property
    def layer(self) -> str | None:
        """The module whose forward is running; None outside the model."""
        if not self._frames.stack or in_backward():
            return None
        return self._frames.stack[-1].name

    @property
    def has_sinks(self) -> bool:
        """Whether that module has learned sinks, which flex_attention applies after its kernel."""
        return "sinks" in self._frames.stack[-1].module._parameters

    def attention(self, seen: Seen) -> bool:
        """Pass on attention; False if its heads cannot be distinguished from its batch."""
        frames = tuple(self._frames.stack)
        name, source = frames[-1].name, self._frames.input or ModelInput()
        call = self._calls[name]
        seen = unpacked(seen, frames[-1])
        axes = find_heads(seen.lead, frames[-1].module, source.batch, seen.heads)
        if axes is None:
            self._unclear.append((name, f"{name}: {(*seen.lead, seen.queries, seen.keys)}"))
            return False
        self._calls[name] += 1
        self._most[name] = max(self._most[name], call + 1)
        if self._chosen is not None and (
            name not in self._chosen or not self._chosen[name].wants(call)
        ):
            self._not_chosen.add(name)
            return True
        self._handed += 1
        with ordinary_modes(seen.output.device.type):
            value = seen.value
            record = AttentionCall(
                name=name,
                call=call,
                batch=axes.batch,
                heads=axes.heads,
                queries=seen.queries,
                keys=seen.keys,
                output=axes.arrange(seen.output),
                over=attends_over(frames[-1], axes, seen.queries, seen.keys, value),
                frames=frames,
                convolutions=self.convolutions,
                moves=self.moves,
                input=source,
                _rows=axes.arranged(seen.rows),
                _value=lambda: (
                    None if value is None else axes.arrange(shared_heads(value, seen.lead))
                ),
                _scratch=self._scratch,
                _repeated=self._most[name] > 1,
            )
            try:
                self._handle(record)
            except Exception as error:
                error.add_note(f"repsim: in the attention of layer {name!r} (call {call})")
                raise
        return True

    # -- a forward's beginning and end -------------------------------------------------------------

    def _new_forward(self) -> None:
        self.eager.clear()
        self.convolutions = []
        self.moves = []
        self._calls = Counter()
        self._not_chosen = set()
        self._unclear = []
        self._handed = 0

    def _start(self, *_: object) -> None:
        if not in_backward():
            self._new_forward()

    def _finish(self, *_: object) -> None:
        """Runs when the forward of the model succeeded."""
        if not in_backward():
            self._settle()

    def _settle(self) -> None:
        self._settled = True
        problems = problems_of(self.eager.softmaxes, self._unclear, self._chosen)
        if self._chosen is not None:
            absent = [
                label
                for layer in self._chosen.values()
                for label in layer.absent(self._calls[layer.name])
            ]
            if absent:
                raise LayerNotFoundError(why_absent(absent, list(self._calls), problems))
        if not self._handed:
            ran = self._frames.ran
            raise CaptureError(
                why_nothing(problems, self._not_chosen, self.eager.softmaxes, ran=ran)
            )
        news = {layer: text for layer, text in problems if layer not in self._warned}
        self._warned.update(news)
        if news:
            shown = "".join(f"  {text}\n" for text in list(news.values())[:8])
            warn(
                "AttentionRecorder: these look like attention, but could not be recorded:\n"
                f"{shown}{WHY_UNMATCHED}"
            )
