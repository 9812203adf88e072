"""Observing attention below the level of modules, where kernels and fast paths bypass hooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any, Protocol

from torch import Tensor
from torch.overrides import TorchFunctionMode

from repsim._errors import CaptureError
from repsim.capture.attention._eager import FOLLOWED, PRODUCTS, SOFTMAX, EagerAttention
from repsim.capture.attention._flex import flex_rows
from repsim.capture.attention._rows import Rows, eager_rows, fused_rows
from repsim.capture.tokens._evidence import convolution_of, moved
from repsim.capture.tokens._rules import Convolution, Move

__all__ = ["AttentionMode", "Listener", "Seen"]

_FUSED = "scaled_dot_product_attention"
_MODULE = "multi_head_attention_forward"
_FLEX = "flex_attention"
_PACKED = frozenset({"_varlen_attn", "_flash_attn_varlen_forward", "varlen_fwd"})
_UNSEEN = frozenset(
    {
        *("_native_multi_head_attention", "_transformer_encoder_layer_fwd"),
        *("_flash_attn_forward", "_flash_attention_forward"),
        *_PACKED,
        *(f"{name}.default" for name in _PACKED),  # an overload of an operator
    }
)
_PLACES = frozenset({"conv2d", "pad", "roll"})
_INTERESTING = SOFTMAX | PRODUCTS | FOLLOWED | {_FUSED, _MODULE, _FLEX} | _PLACES | _UNSEEN

_FUSED_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


class Seen:
    """Attention as seen in a function call, before its heads are known.

    Attributes
    ----------
    lead : tuple of int
        The axes of the weights before (queries, keys).
    queries, keys : int
        The last two.
    rows : Rows
        The weights, by slices of queries.
    output, value : torch.Tensor
        (*lead, queries, d) and (…, keys, d), whose leading axes broadcast; None for values of other
        axes.
    heads : int or None
        The number of heads, if the function got it.
    """

    def __init__(
        self, rows: Rows, keys: int, output: Tensor, value: Tensor | None, heads: int | None
    ) -> None:
        self.rows = rows
        self.lead = tuple(int(size) for size in output.shape[:-2])
        self.queries = int(output.shape[-2])
        self.keys = int(keys)
        self.output = output
        self.value = value
        self.heads = heads


class Listener(Protocol):
    """The receiver of what the mode sees."""

    eager: EagerAttention
    convolutions: list[Convolution]
    moves: list[Move]

    @property
    def layer(self) -> str | None:
        """The module whose forward is running; None outside the model."""

    @property
    def has_sinks(self) -> bool:
        """Whether that module has learned sinks."""

    def attention(self, seen: Seen) -> bool:
        """Handle attention; return False if it cannot be identified."""


class AttentionMode(TorchFunctionMode):
    """Reports attention, softmaxes and convolutions that run while it is active to a listener.

    Functions run as without it, with two exceptions: ``nn.MultiheadAttention`` and
    ``nn.TransformerEncoder`` leave their fast paths, as torch itself does when any such mode is
    active, and take the equivalent paths of separate operations.
    """

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener
        self._heads: int | None = None  # of the multi_head_attention_forward that is running

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function, and report it if it is relevant."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name not in _INTERESTING or self._listener.layer is None:
            return func(*args, **kwargs)
        if name == _MODULE:
            return self._module(func, args, kwargs)
        if name in _UNSEEN or (name == _FLEX and self._listener.has_sinks):
            raise self._refusal(name)
        eager = self._listener.eager
        if name in FOLLOWED and eager.idle:
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        if name == _FLEX:
            key, value = args[1:3]
            seen = Seen(flex_rows(args), key.shape[-2], result[0], value, self._heads)
            self._listener.attention(seen)
        elif name == _FUSED:
            self._fused(args, kwargs, result)
        elif name in SOFTMAX:
            eager.begin(self._listener.layer, args, kwargs, result)
        elif name in _PLACES:
            self._place(name, args, kwargs, result)
        elif name in FOLLOWED:
            eager.step(func, name, args, kwargs, result)
        elif not eager.idle and (product := eager.product(name, args, kwargs, result)) is not None:
            rows, keys = eager_rows(product.weights), product.weights.shape[-1]
            seen = Seen(rows, keys, product.output, product.value, self._heads)
            product.softmax.matched = self._listener.attention(seen)
        return result

    def _module(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        # A handler runs with its mode switched off, which would hide the attention inside. Switch
        # the mode on again, and call a function that does not invoke the handler again.
        unasked = FunctionType(
            func.__code__,
            {**func.__globals__, "has_torch_function": lambda _: False},
            func.__name__,
            func.__defaults__,
            func.__closure__,
        )
        unasked.__kwdefaults__ = func.__kwdefaults__
        before = self._heads
        self._heads = int(args[4] if len(args) > 4 else kwargs["num_heads"])
        try:
            with self:
                return unasked(*args, **kwargs)
        finally:
            self._heads = before

    def _fused(self, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> None:
        given = {**dict(zip(_FUSED_ARGUMENTS, args, strict=False)), **kwargs}
        query, key, value = given["query"], given["key"], given["value"]
        if query.is_nested or key.is_nested:
            raise CaptureError(
                f"AttentionRecorder: {self._listener.layer!r} attends in a nested tensor, whose "
                "weights have no one shape.\n"
                "  Pad the sequences, and pass a key padding mask."
            )
        mask = given.get("attn_mask")
        if mask is not None and hasattr(mask, "_materialize"):  # torch.nn.attention.bias
            mask = mask._materialize(query.device)
        rows = fused_rows(
            query,
            key,
            mask,
            is_causal=bool(given.get("is_causal", False)),
            scale=given.get("scale"),
        )
        self._listener.attention(Seen(rows, key.shape[-2], output, value, self._heads))

    def _place(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """Record the operations that show where tokens lie."""
        source = args[0] if args else kwargs.get("input")
        if not (isinstance(source, Tensor) and isinstance(result, Tensor)):
            return
        if name != "conv2d":
            if (move := moved(name, source, result, args[1:], kwargs)) is not None:
                self._listener.moves.append(move)
            return
        stride = args[3] if len(args) > 3 else kwargs.get("stride", 1)
        if (found := convolution_of(source, result, stride)) is not None:
            self._listener.convolutions.append(found)

    def _refusal(self, name: str) -> CaptureError:
        name = name.removesuffix(".default")
        if name in _PACKED:
            return CaptureError(
                f"AttentionRecorder: layer {self._listener.layer!r} uses {name}, for texts "
                "packed into one row. It keeps no weights.\n"
                '  Load a Hugging Face model with attn_implementation="sdpa" or "eager", which pad '
                "texts instead."
            )
        return CaptureError(
            f"AttentionRecorder: layer {self._listener.layer!r} uses {name}, whose weights "
            "cannot be seen.\n"
            '  Load a Hugging Face model with attn_implementation="sdpa"; elsewhere use\n'
            "  torch.nn.functional.scaled_dot_product_attention with a mask."
        )
