"""The output of a module is reduced to one tensor, which is copied."""

from collections import OrderedDict, namedtuple
from dataclasses import make_dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from packages import transformers
from repsim import CaptureError
from repsim.capture import Recorder, carried

Pair = namedtuple("Pair", ["first", "second"])
Found = make_dataclass("Found", ["ids", "hidden"])
A, B = torch.ones(2, 3), torch.zeros(2, 5)
IDS = torch.tensor([1, 2])
LOSS = torch.tensor(0.5)


class Gives(nn.Module):
    """Returns the same object for every input."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x):
        return self.output


class Net(nn.Module):
    """A layer that returns `output`, and one that returns a batch."""

    def __init__(self, output):
        super().__init__()
        self.layer, self.batch = Gives(output), nn.Tanh()

    def forward(self, x):
        self.layer(x)
        return self.batch(x)


def recorded(output, layers="layer", **options):
    net = Net(output)
    with Recorder(net, layers, **options) as recorder:
        net(torch.ones(2, 1))
    return recorder


def hugging_face(**fields):
    return transformers.modeling_outputs.BaseModelOutputWithPooling(**fields)


def test_the_first_float_tensor_depth_first():
    for output in (
        A,
        (A, B),
        [None, A, B],
        (None, 3, "x", IDS, LOSS, A, B),
        Pair(None, A),
        Pair(A, B),
        {"ids": IDS, "hidden": A, "more": B},
        OrderedDict(b=A, a=B),
        hugging_face(last_hidden_state=A, pooler_output=B),
        hugging_face(pooler_output=A),
        Found(IDS, A),
        ((None, (LOSS, [A])), B),
        {"cache": (IDS, {"k": A}), "x": B},
    ):
        assert torch.equal(recorded(output)["layer"], A), output


def test_a_tensor_of_any_dtype_is_returned_itself():
    assert torch.equal(recorded(IDS)["layer"], IDS)


def test_without_one_the_error_names_module_and_type():
    for output, shown in (
        (None, "NoneType"),
        ((None, 3), "tuple of (NoneType, int)"),
        ((LOSS, IDS), "tuple of (Tensor, Tensor)"),
        ({"ids": IDS}, "dict with keys ['ids']"),
        ("text", "str"),
    ):
        with pytest.raises(CaptureError) as caught:
            recorded(output)
        assert "layer 'layer' gave no tensor" in str(caught.value), shown
        assert f"it returned: {shown}\n" in str(caught.value)
        assert "select=" in str(caught.value), shown
        # A glob leaves it out without a warning: warnings are errors here.
        assert list(recorded(output, "*")) == ["batch"], shown


def test_a_number():
    with pytest.raises(CaptureError, match="'layer' returned a number"):
        recorded(LOSS)
    assert list(recorded(LOSS, "*")) == ["batch"]


def test_select_takes_the_requested_tensor():
    for output, select in (
        ((B, A), 1),
        ([B, A], -1),
        (Pair(B, A), 1),
        ({"x": B, "y": A}, "y"),
        (hugging_face(last_hidden_state=B, pooler_output=A), "pooler_output"),
        ((B, A), lambda output: output[1]),
    ):
        assert torch.equal(recorded(output, select=select)["layer"], A), (output, select)


def test_a_select_may_return_an_output_unchanged():
    for output in (A, (A, B), {"x": None, "y": A}):
        found = recorded(output, select=lambda output: output)["layer"]
        assert torch.equal(found, recorded(output)["layer"])


def test_select_never_falls_back():
    for output, select in (
        ((A, B), 2),
        ((A, None), 1),
        (A, 0),  # not the first sample
        (A, "hidden"),
        ({"x": A}, "y"),
        ({"x": A}, 0),
        ((A, B), lambda output: list(output)),
    ):
        try:
            recorded(output, select=select)
        except CaptureError as error:
            assert "layer 'layer' gave no tensor" in str(error), (output, select)  # noqa: PT017
        else:
            pytest.fail(f"select={select!r} of {output} was something")


def test_a_failing_select_names_the_layer():
    with pytest.raises(KeyError, match="on layer 'layer', given dict with keys") as caught:
        recorded({"x": A}, select=lambda output: output["y"])
    assert "'layer'" in caught.value.__notes__[0]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_that_are_no_representations():
    for output, kind, repair in (
        (torch.nested.nested_tensor([A, B[:, :3]]), "nested", "to_padded_tensor(0.0)"),
        (A.to_sparse(), "sparse", "to_dense()"),
        (A.to(torch.complex64), "complex", "view_as_real"),
    ):
        with pytest.raises(CaptureError, match=f"'layer' returned a {kind} tensor") as caught:
            recorded(output)
        assert repair in str(caught.value)
        with pytest.warns(UserWarning, match=f"left out:\n  layer a {kind} tensor"):
            assert list(recorded(output, "*")) == ["batch"]


class Overwritten(nn.Module):
    """Its layer's output is overwritten in place before the forward ends."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x):
        return self.layer(x.clone()).zero_()


def test_values_that_share_memory_with_an_output_are_copied():
    x, net = torch.arange(6.0).reshape(2, 3), Overwritten()
    for view in (
        lambda t: t,
        lambda t: t[:, 0],
        lambda t: t.flatten(),
        lambda t: t.detach(),
        lambda t: t.numpy(),
        lambda t: t[1:].numpy(),
        lambda t: (t, 1),
        lambda t: [t[0]],
        lambda t: {"x": t.T},
    ):
        with Recorder(net, "layer", transform=view) as recorder:
            net(x)
        kept, expected = recorder["layer"], view(x.clone())
        assert type(kept) is type(expected)
        assert str(kept) == str(expected)


def test_arrays_without_common_labels_stay_unchanged():
    elsewhere = np.ones(3)
    for compute in (lambda t: t @ t.T, lambda t: (t + 1).numpy(), lambda t: 3, lambda t: elsewhere):
        made = []

        def transform(tensor, compute=compute, made=made):
            made.append(compute(tensor))
            return made[-1]

        assert recorded(A, transform=transform)["layer"] is made[0]


def test_a_copy_to_main_memory_is_complete():
    """Torch may return a copy of an accelerator's tensor before the values have arrived."""
    waits = {}

    class Copies(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.Tensor.to:
                waits[args[1].type] = not kwargs["non_blocking"]
            return args[0] if function is torch.Tensor.to else function(*args, **(kwargs or {}))

    with Copies():
        for place in ("cpu", "cuda"):
            carried(torch.empty(2, device="meta"), torch.device(place))
    assert waits == {"cpu": True, "cuda": False}
