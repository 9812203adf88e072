"""From whatever a module returned to one tensor, and to memory of its own."""

from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from repsim._errors import CaptureError
from repsim.capture._output import owned, pick

Pair = namedtuple("Pair", ["first", "second"])
A, B = torch.ones(2, 3), torch.zeros(2, 5)
IDS = torch.tensor([1, 2])
LOSS = torch.tensor(0.5)


class TestDefaultRule:
    @pytest.mark.parametrize(
        "output",
        [
            A,
            (A, B),
            [None, A, B],
            (None, 3, "x", IDS, LOSS, A, B),
            Pair(None, A),
            Pair(A, B),
            {"ids": IDS, "hidden": A, "more": B},
            OrderedDict(b=A, a=B),
            BaseModelOutputWithPooling(last_hidden_state=A, pooler_output=B),
            BaseModelOutputWithPooling(pooler_output=A),
            ((None, (LOSS, [A])), B),
            {"cache": (IDS, {"k": A}), "x": B},
        ],
    )
    def test_first_float_tensor_depth_first(self, output):
        assert pick(output, "layer") is A

    def test_a_tensor_is_itself_whatever_its_dtype(self):
        assert pick(IDS, "layer") is IDS

    @pytest.mark.parametrize(
        ("output", "shown"),
        [
            (None, "NoneType"),
            ((None, 3), "tuple of (NoneType, int)"),
            ((LOSS, IDS), "tuple of (Tensor, Tensor)"),
            ({"ids": IDS}, "dict with keys ['ids']"),
            ("text", "str"),
        ],
    )
    def test_without_one_the_error_names_module_and_type(self, output, shown):
        with pytest.raises(CaptureError) as caught:
            pick(output, "blocks.3")
        assert "layer 'blocks.3' gave no tensor" in str(caught.value)
        assert f"it returned: {shown}\n" in str(caught.value)
        assert "select=" in str(caught.value)
        assert caught.value.quiet

    def test_a_number(self):
        with pytest.raises(CaptureError, match="'loss' returned a number"):
            pick(LOSS, "loss")


class TestSelect:
    @pytest.mark.parametrize(
        ("output", "select"),
        [
            ((B, A), 1),
            ([B, A], -1),
            (Pair(B, A), 1),
            ({"x": B, "y": A}, "y"),
            (BaseModelOutputWithPooling(last_hidden_state=B, pooler_output=A), "pooler_output"),
            ((B, A), lambda output: output[1]),
        ],
    )
    def test_takes_what_is_asked_for(self, output, select):
        assert pick(output, "layer", select) is A

    @pytest.mark.parametrize(
        ("output", "select"),
        [
            ((A, B), 2),
            ((A, None), 1),
            (A, 0),  # not the first sample
            (A, "hidden"),
            ({"x": A}, "y"),
            ({"x": A}, 0),
            ((A, B), lambda output: output),
        ],
    )
    def test_never_falls_back(self, output, select):
        with pytest.raises(CaptureError, match=r"layer 'layer' gave no tensor"):
            pick(output, "layer", select)

    def test_a_failing_callable_names_the_layer(self):
        with pytest.raises(KeyError, match="on layer 'layer', given dict with keys") as caught:
            pick({"x": A}, "layer", lambda output: output["y"])
        assert "'layer'" in caught.value.__notes__[0]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    ("make", "kind", "repair"),
    [
        (lambda: torch.nested.nested_tensor([A, B[:, :3]]), "nested", "to_padded_tensor(0.0)"),
        (lambda: A.to_sparse(), "sparse", "to_dense()"),
        (lambda: A.to(torch.complex64), "complex", "view_as_real"),
    ],
)
def test_tensors_that_are_no_representations(make, kind, repair):
    with pytest.raises(CaptureError, match=f"'layer' returned a {kind} tensor") as caught:
        pick(make(), "layer")
    assert repair in str(caught.value)
    assert not caught.value.quiet


class TestOwned:
    @pytest.mark.parametrize(
        "view",
        [
            lambda t: t,
            lambda t: t[:, 0],
            lambda t: t.flatten(),
            lambda t: t.detach(),
            lambda t: t.numpy(),
            lambda t: t[1:].numpy(),
            lambda t: (t, 1),
            lambda t: [t[0]],
            lambda t: {"x": t.T},
        ],
    )
    def test_what_shares_memory_is_copied(self, view):
        source = torch.arange(6.0).reshape(2, 3)
        before = view(source.clone())
        kept = owned(view(source), source)
        source.zero_()
        assert type(kept) is type(before)
        assert str(kept) == str(before)

    @pytest.mark.parametrize("compute", [lambda t: t @ t.T, lambda t: (t + 1).numpy(), lambda t: 3])
    def test_what_does_not_is_kept(self, compute):
        source = torch.ones(2, 3)
        value = compute(source)
        assert owned(value, source) is value

    def test_an_array_from_elsewhere_is_kept(self):
        value = np.ones(3)
        assert owned(value, torch.ones(3)) is value
