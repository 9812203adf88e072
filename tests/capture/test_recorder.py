"""The recorder's contract on small models: the block, the mapping, the memory, the labels."""

import gc
import logging
import threading
import weakref
from collections import OrderedDict, namedtuple
from collections.abc import Mapping
from dataclasses import make_dataclass

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from repsim import CaptureError, InputError, LayerNotFoundError, RepsimError
from repsim.capture import REDUCERS, Recorder, token


class Net(nn.Module):
    """A ReLU that runs twice in place, and a head that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(6, 6)
        self.last = nn.Linear(6, 2)
        self.norm = nn.BatchNorm1d(6)
        self.first = nn.Linear(4, 6)
        self.relu = nn.ReLU(inplace=True)

    def features(self, x):
        return self.relu(-self.relu(self.norm(self.first(x))) + 0.5)

    def forward(self, x):
        return self.last(self.features(x))


@pytest.fixture
def net() -> Net:
    return Net()


WEIGHT = nn.Parameter(torch.ones(()))
Rows, NamedRows = make_dataclass("Rows", ["rows"]), namedtuple("NamedRows", ["rows"])
X = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
ORDER = ["first", "norm", "relu:0", "relu:1", "last"]


class TestMapping:
    def test_labels_are_in_execution_order_and_travel_with_the_values(self, net):
        with Recorder(net) as rec:
            y = net(X)
        assert isinstance(rec, Mapping)
        assert list(rec) == ORDER
        assert [tuple(value.shape) for value in rec.values()] == [(5, 6)] * 4 + [(5, 2)]
        assert torch.equal(rec["last"], y)
        assert torch.equal(rec["first"], net.first(X))
        assert len(rec) == 5
        assert repr(rec) == "<Recorder of Net: 5 layers chosen, 5 records>"

    def test_a_module_that_runs_twice_gives_two_records(self, net):
        with Recorder(net, ["relu", "norm"]) as rec:
            net(X)
        once = rec["norm"].relu()
        assert torch.equal(rec["relu:0"], once)
        assert torch.equal(rec["relu:1"], (0.5 - once).relu())
        assert "relu" not in rec
        assert rec.get("relu") is None

    @pytest.mark.parametrize("layers", ["relu:1", "r*:1", ["relu:1", "r*:1"]])
    def test_one_call_keeps_its_number(self, net, layers):
        with Recorder(net, layers) as rec:
            net(X)
        assert list(rec) == ["relu:1"]

    def test_call_zero_of_a_module_that_ran_once(self, net):
        with Recorder(net, "last:0") as rec:
            net(X)
        assert list(rec) == ["last"]
        with pytest.raises(KeyError, match="'last' ran once: ask for it by that name"):
            rec["last:0"]

    @pytest.mark.parametrize(
        ("label", "says"),
        [
            ("relu", "'relu' ran 2 times: ask for one of its calls"),
            ("norn", "Did you mean 'norm'"),
            ("unused", "it was chosen, and did not run"),
            ("relu:2", "Did you mean 'relu:1' or 'relu:0'"),
        ],
    )
    def test_a_missing_label_explains_itself(self, net, label, says):
        with Recorder(net) as rec:
            net(X)
        assert label not in rec
        with pytest.raises(LayerNotFoundError) as caught:
            rec[label]
        assert isinstance(caught.value, KeyError)
        assert str(caught.value).startswith(f"Recorder: {label!r} was not recorded.\n")
        assert says in str(caught.value)
        assert "recorded: 'first', 'norm', 'relu:0', 'relu:1', 'last'" in str(caught.value)

    def test_a_layer_that_was_not_chosen(self, net):
        with Recorder(net, "first") as rec:
            net(X)
        with pytest.raises(KeyError, match="it was not chosen"):
            rec["last"]

    def test_recorders_are_compared_by_identity(self, net):
        with Recorder(net) as one, Recorder(net) as two:
            net(X)
        assert one == one
        assert one != two
        assert len({one, two}) == 2


class TestSharedModule:
    @pytest.fixture
    def tied(self) -> nn.Sequential:
        shared = nn.Linear(4, 4)
        return nn.Sequential(shared, nn.ReLU(), shared)

    @pytest.mark.parametrize("layers", ["*", "0", "2", ["0", "2"]])
    def test_goes_by_its_first_name(self, tied, layers):
        with Recorder(tied, layers) as rec:
            y = tied(X)
        assert [label for label in rec if label != "1"] == ["0:0", "0:1"]
        assert torch.equal(rec["0:1"], y)

    def test_asking_for_the_alias_explains(self, tied):
        with Recorder(tied, "2") as rec:
            tied(X)
        with pytest.raises(KeyError, match="it is another name of '0'"):
            rec["2"]


class TestMemory:
    def test_in_place_operations_do_not_reach_the_records(self, net):
        aliases = {}
        handle = net.norm.register_forward_hook(lambda m, a, y: aliases.update(norm=y.detach()))
        with Recorder(net, "norm") as rec:
            net(X)
        handle.remove()
        assert aliases["norm"].min() == 0  # the mistake that the recorder does not make
        assert rec["norm"].min() < 0
        torch.testing.assert_close(rec["norm"].mean(0), torch.zeros(6))

    @pytest.mark.parametrize(
        "transform",
        [
            "flatten",
            "mean",
            lambda t: t,
            lambda t: t[:, :3],
            lambda t: {"x": t.T},
            lambda t: OrderedDict(x=t.T),
            lambda t: Rows(t[1:]),
            lambda t: NamedRows(t[1:]),
            torch.Tensor.numpy,
        ],
    )
    def test_views_do_not_alias(self, net, transform):
        net.requires_grad_(False)
        with Recorder(net, "norm", transform=transform) as rec:
            net(X)
        value = rec["norm"]["x"] if isinstance(rec["norm"], dict) else rec["norm"]
        assert getattr(value, "rows", value).min() < 0

    def test_a_cls_view_does_not_keep_all_tokens(self):
        net = nn.Sequential(nn.Linear(4, 4))
        with Recorder(net, transform="cls") as rec:
            net(torch.ones(2, 100, 4))
        assert rec["0"].shape == (2, 4)
        assert rec["0"].untyped_storage().nbytes() == 2 * 4 * 4

    def test_an_output_is_freed_when_it_was_reduced(self):
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        outputs = []
        net[0].register_forward_hook(lambda m, a, y: outputs.append(weakref.ref(y)))
        with Recorder(net, transform=lambda t: t @ t.T) as rec, torch.no_grad():
            net(X)
        gc.collect()
        assert outputs[0]() is None
        assert rec["0"].shape == (5, 5)

    @pytest.mark.parametrize("transform", [None, "mean", lambda t: t + 1])
    def test_values_are_detached(self, net, transform):
        with Recorder(net, transform=transform) as rec:
            net(X)
        assert not any(value.requires_grad for value in rec.values())

    @pytest.mark.parametrize("transform", [None, lambda t: t, lambda t: t * 1])
    def test_or_not(self, net, transform):
        with Recorder(net, "norm", transform=transform, detach=False) as rec:
            net(X)
        assert rec["norm"].requires_grad
        rec["norm"].pow(2).sum().backward()
        assert net.first.weight.grad is not None
        assert net.last.weight.grad is None

    def test_the_models_gradients_are_untouched(self, net):
        net(X).sum().backward()
        expected = {name: p.grad.clone() for name, p in net.named_parameters() if "un" not in name}
        net.zero_grad()
        with Recorder(net, transform=lambda t: t * 2):
            net(X).sum().backward()
        for name, gradient in expected.items():
            torch.testing.assert_close(net.get_parameter(name).grad, gradient)


class TestTransform:
    def test_by_name_and_by_callable(self):
        net = nn.Sequential(nn.Conv2d(3, 4, 3))
        x = torch.randn(2, 3, 6, 6)
        for transform in ("mean", REDUCERS["mean"], lambda t: t.mean((2, 3))):
            with Recorder(net, transform=transform) as rec:
                y = net(x)
            torch.testing.assert_close(rec["0"], y.detach().mean((2, 3)))

    def test_the_image_counts_beside_other_arguments(self):
        """Its aspect alone shows that the channels of this map are last."""

        class ChannelsLast(nn.Module):
            def __init__(self):
                super().__init__()
                self.turn = nn.Identity()

            def forward(self, x, flag=False):
                return self.turn(x.permute(0, 2, 3, 1).contiguous())

        net, x = ChannelsLast(), torch.randn(2, 3, 16, 16)
        for options in ({}, {"flag": True}):
            with Recorder(net, ["turn"], transform="mean") as rec:
                net(x, **options)
            torch.testing.assert_close(rec["turn"], x.mean((2, 3)))

    def test_one_token(self):
        net = nn.Sequential(nn.Linear(4, 4))
        with Recorder(net, transform=token(2)) as rec:
            y = net(torch.randn(3, 5, 4))
        assert torch.equal(rec["0"], y[:, 2])

    @pytest.mark.parametrize("transform", ["CLS", 3])
    def test_unknown(self, net, transform):
        with pytest.raises(InputError, match="transform"):
            Recorder(net, transform=transform)

    def test_it_gets_the_tensor_that_the_model_uses_next(self):
        net = nn.Sequential(nn.Linear(4, 4), nn.Identity(), nn.ReLU(inplace=True))
        seen = []
        with Recorder(net, transform=lambda t: seen.append((t, t._version)), all_modules=True):
            y = net(X)
        (a, va), (b, vb), (c, vc) = seen
        assert a is b
        assert b is c
        assert c is y
        assert va == vb < vc

    def test_one_that_wants_to_know_the_layer(self, net):
        class Named:
            wants_layer = True

            def __call__(self, tensor, layer, call):
                return layer, call, tuple(tensor.shape)

        with Recorder(net, ["relu", "last"], transform=Named()) as rec:
            net(X)
        assert dict(rec) == {
            "relu:0": ("relu", 0, (5, 6)),
            "relu:1": ("relu", 1, (5, 6)),
            "last": ("last", 0, (5, 2)),
        }

    def test_a_failing_one_names_the_layer(self, net, unchanged):
        with (
            unchanged(net),
            Recorder(net, "norm", transform=lambda t: t[:, 9]),
            pytest.raises(IndexError, match=r"on layer 'norm' \(call 0\), \(5, 6\)"),
        ):
            net(X)

    def test_autocast_is_off_inside(self, net):
        states = []

        def gram(t):
            states.append(torch.is_autocast_enabled("cpu"))
            return t.float() @ t.float().T

        with torch.autocast("cpu", dtype=torch.bfloat16), Recorder(net, transform=gram) as rec:
            y = net(X)
            assert torch.is_autocast_enabled("cpu")
            assert (y.float() @ y.float().T).dtype == torch.bfloat16
        assert y.dtype == torch.bfloat16
        assert not any(states)
        assert {value.dtype for value in rec.values()} == {torch.float32}

    def test_autocast_outputs_keep_their_dtype(self, net):
        with torch.autocast("cpu", dtype=torch.bfloat16), Recorder(net) as rec:
            net(X)
        assert rec["first"].dtype == torch.bfloat16


class TestInferenceMode:
    @pytest.mark.parametrize(
        "transform", [None, "flatten", lambda t: t[:, :2], lambda t: t * 2, lambda t: t * WEIGHT]
    )
    @pytest.mark.parametrize("detach", [True, False])
    def test_values_are_ordinary_tensors(self, net, transform, detach):
        with torch.inference_mode(), Recorder(net, transform=transform, detach=detach) as rec:
            assert net(X).is_inference()
            assert torch.is_inference_mode_enabled()
        for value in rec.values():
            assert not value.is_inference()
            assert not value.requires_grad
        scale = torch.ones((), requires_grad=True)
        (rec["norm"] * scale).sum().backward()  # an inference tensor cannot be saved for this
        assert scale.grad is not None

    def test_under_no_grad_nothing_turns_gradients_on(self, net):
        rec = Recorder(net, transform=lambda t: t * WEIGHT, detach=False)
        with torch.no_grad(), rec:
            net(X)
        assert not any(value.requires_grad for value in rec.values())


class TestWhatIsHeld:
    def test_the_latest_forward(self, net):
        net.eval()
        with Recorder(net) as rec:
            net(X)
            first = rec["first"]
            net(X + 1)
            assert list(rec) == ORDER
            assert torch.equal(rec["first"], net.first(X + 1))
        assert torch.equal(first, net.first(X))

    def test_parts_of_a_model_accumulate_until_cleared(self, net):
        with Recorder(net, ["first", "r*"]) as rec:
            net.features(X)
            assert list(rec) == ["first", "relu:0", "relu:1"]
            net.features(X)
            assert list(rec) == ["first:0", "relu:0", "relu:1", "first:1", "relu:2", "relu:3"]
            rec.clear()
            net.features(X)
            assert list(rec) == ["first", "relu:0", "relu:1"]
            rec.clear()

    def test_a_nested_call_of_the_root_does_not_start_afresh(self):
        class Recursive(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(4, 4)

            def forward(self, x, depth=2):
                x = self.layer(x)
                return self(x, depth - 1) if depth else x

        net = Recursive()
        with Recorder(net) as rec:
            net(X)
        assert list(rec) == ["layer:0", "layer:1", "layer:2"]

    def test_paused(self, net):
        with Recorder(net, "first") as rec:
            net(X)
            kept = rec["first"]
            rec.enabled = False
            net(X + 1)
            assert rec["first"] is kept
            rec.enabled = True
            net(X + 1)
        assert torch.equal(rec["first"], net.first(X + 1))

    def test_two_models_that_share_modules(self, net):
        part = nn.Sequential(net.first, net.norm)
        whole, inner = Recorder(net, "first"), Recorder(part, "0")
        with whole, inner:
            inner.enabled = False
            net(X)
            inner.enabled, whole.enabled = True, False
            part(X + 1)
        assert torch.equal(whole["first"], net.first(X))
        assert torch.equal(inner["0"], net.first(X + 1))

    def test_may_be_used_again(self, net):
        rec = Recorder(net, "first")
        for shift in (0, 1):
            with rec:
                net(X + shift)
            assert torch.equal(rec["first"], net.first(X + shift))

    def test_but_not_inside_itself(self, net, unchanged):
        with (
            unchanged(net),
            Recorder(net) as rec,
        ):
            with pytest.raises(CaptureError, match="already recording"), rec:
                pass
            net(X)
            assert list(rec) == ORDER


class TestLeavingTheModelAsItWas:
    @pytest.fixture
    def frozen(self, net) -> Net:
        net.train()
        net.norm.eval()
        net.last.register_forward_hook(lambda m, a, y: None)
        return net

    def test_after_success(self, frozen, unchanged):
        with unchanged(frozen), Recorder(frozen) as rec:
            frozen(X)
        rec["last"]

    def test_hooks_are_there_in_between(self, net):
        with Recorder(net):
            assert len(net.first._forward_hooks) == 1
            net(X)

    def test_after_an_exception_in_the_forward(self, frozen, unchanged):
        with unchanged(frozen), pytest.raises(RuntimeError, match="shapes"), Recorder(frozen):
            frozen(torch.ones(5, 3))

    def test_after_a_bad_argument(self, frozen, unchanged):
        with unchanged(frozen):
            for options in ({"layers": "nope"}, {"transform": "nope"}, {"batch_dim": "x"}):
                with pytest.raises(RepsimError), Recorder(frozen, **options):
                    pass

    def test_after_a_failure_half_way_through_registration(self, frozen, unchanged, monkeypatch):
        def refuse(*args, **kwargs):
            raise RuntimeError("no hooks here")

        monkeypatch.setattr(frozen.last, "register_forward_hook", refuse)
        with unchanged(frozen):
            rec = Recorder(frozen)
            with pytest.raises(RuntimeError, match="no hooks here"), rec:
                pytest.fail("the block was entered")
            monkeypatch.undo()
            with rec:  # it may be tried again
                frozen(X)

    def test_after_a_user_hook_that_raises_before_ours(self, net):
        def fail(*args):
            raise ValueError("user")

        handle = net.register_forward_pre_hook(fail)
        with Recorder(net, "first") as rec:
            with pytest.raises(ValueError, match="user"):
                net(X)
            handle.remove()
            net(X)
            net(X)
        assert list(rec) == ["first"]


class TestFailedForward:
    def test_half_a_forward_is_not_a_recording(self, net):
        with Recorder(net, "*") as rec:
            with pytest.raises(RuntimeError):
                net.last(net.features(X)[:, 1:])
            rec.clear()
            handle = net.last.register_forward_pre_hook(lambda m, args: (args[0][:, 1:],))
            with pytest.raises(RuntimeError):
                net(X)
            assert len(rec) == 0
            with pytest.raises(KeyError, match="the last forward raised before it was complete"):
                rec["first"]
            handle.remove()
            net(X)
            assert list(rec) == ORDER

    def test_one_that_is_caught_does_not_raise_again_on_leaving(self, net):
        with Recorder(net, "last") as rec, pytest.raises(RuntimeError, match="shapes"):
            net(torch.ones(5, 3))
        assert len(rec) == 0


class TestNeverRan:
    def test_by_name_is_an_error_when_the_forward_ends(self, net, unchanged):
        with (
            unchanged(net),
            Recorder(net, ["first", "unused", "relu:2"]),
            pytest.raises(LayerNotFoundError, match=r"did not run: 'unused', 'relu:2'\."),
        ):
            net(X)

    def test_by_pattern_it_is_dropped_with_one_log_line(self, net, caplog):
        caplog.set_level(logging.INFO, "repsim")
        with Recorder(net) as rec:
            net(X)
            net(X)
        assert "unused" not in rec
        assert [r.getMessage() for r in caplog.records] == ["Recorder: did not run: 'unused'"]

    @pytest.mark.parametrize("layers", ["unus*", nn.ModuleList])
    def test_nothing_ran(self, layers):
        net = Net()
        net.list = nn.ModuleList()
        with (
            Recorder(net, layers),
            pytest.raises(
                CaptureError, match=r"none of the chosen layers ran.*\n.*without calling"
            ),
        ):
            net(X)
        with pytest.raises(CaptureError, match="Call the model inside the block"):  # noqa: SIM117
            with Recorder(net, layers):
                pass

    def test_without_a_call_of_the_root_on_access(self, net):
        with Recorder(net, ["first", "last"]) as rec:
            net.features(X)
            with pytest.raises(LayerNotFoundError, match="did not run: 'last'"):
                rec["first"]
            rec.clear()
            net(X)
            assert list(rec) == ["first", "last"]

    def test_without_a_call_of_the_root_on_leaving(self, net, unchanged):
        with (
            unchanged(net),
            pytest.raises(LayerNotFoundError, match="did not run: 'last'"),
            Recorder(net, ["first", "last"]),
        ):
            net.features(X)

    @pytest.mark.parametrize("layers", ["first", "*"])
    def test_no_forward_at_all(self, net, layers):
        with pytest.raises(CaptureError, match="chosen layers"), Recorder(net, layers):
            pass

    def test_a_driver_that_clears_after_each_batch_may_leave(self, net):
        with Recorder(net, "first") as rec:
            for _ in range(2):
                rec.clear(batch_size=5)
                net.features(X)
                assert list(rec) == ["first"]
            rec.clear()


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.a, self.b = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def forward(self, x):
        return checkpoint(self.b, self.a(x), use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [True, False])
class TestActivationCheckpointing:
    def test_the_recomputation_is_not_recorded(self, reentrant):
        net = Checkpointed(reentrant)
        fired = []
        net.b[0].register_forward_hook(lambda *args: fired.append(1))
        with Recorder(net) as rec:
            net(X).sum().backward()
            assert len(fired) == 2  # hooks do fire again
            assert list(rec) == ["a", "b.0", "b.1", "b"]
            net(X).sum().backward()
        assert list(rec) == ["a", "b.0", "b.1", "b"]

    def test_of_the_root_itself(self, reentrant):
        net = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        x = X.clone().requires_grad_()
        with Recorder(net) as rec:
            for _ in range(2):
                checkpoint(net, x, use_reentrant=reentrant).sum().backward()
                assert list(rec) == ["0", "1"]

    @pytest.mark.parametrize("transform", [None, lambda t: t.pow(2), torch.exp])
    def test_gradients_through_records(self, reentrant, transform):
        if reentrant:
            pytest.skip("reentrant checkpointing runs the forward without a graph")
        net = Checkpointed(reentrant)
        with Recorder(net, "b.0", transform=transform, detach=False) as rec:
            y = net(X)
            (rec["b.0"].sum() + y.sum()).backward()
        gradients = net.a.weight.grad.clone()
        net.zero_grad()
        hidden = net.b[0](net.a(X))
        (hidden if transform is None else transform(hidden)).sum().backward(retain_graph=True)
        net.b[1](hidden).sum().backward()
        torch.testing.assert_close(gradients, net.a.weight.grad)


class TestWrappedModels:
    def test_data_parallel(self, net, unchanged):
        model = nn.DataParallel(net)
        with unchanged(model), Recorder(model, ["norm", "last"]) as rec:
            y = model(X)
        assert list(rec) == ["norm", "last"]
        assert torch.equal(rec["last"], y)

    def test_replicas_are_refused(self):
        net = nn.Sequential(nn.Tanh())
        with pytest.raises(CaptureError, match=r"Call model\.module"), Recorder(net, "0"):
            net[0]._replicate_for_data_parallel()(X)

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    @pytest.mark.parametrize("backend", ["eager", "aot_eager"])
    @pytest.mark.parametrize("warm", [True, False])
    @pytest.mark.parametrize("how", ["wrapper", "in place", "child", "forward"])
    def test_compiled(self, how, warm, backend, unchanged):
        torch.compiler.reset()
        net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 2), nn.ReLU(inplace=True)))
        model = net
        if how == "wrapper":
            model = torch.compile(net, backend=backend)
        elif how == "in place":
            net.compile(backend=backend)
        elif how == "child":
            net[1] = torch.compile(net[1], backend=backend)
        else:
            net.forward = torch.compile(net.forward, backend=backend)
        if warm:
            model(X)
        with unchanged(model), Recorder(model) as rec:
            for _ in range(2):
                y = model(X)
                assert list(rec) == ["0", "1.0", "1.1", "1"]
                assert torch.equal(rec["1"], y)
        assert rec["1.0"].min() < 0
        torch.testing.assert_close(model(X), y)

    def test_a_hook_on_a_compiled_model_is_silently_never_called(self):
        """Why the recorder forces eager execution; if torch changes this, so can the recorder."""
        torch.compiler.reset()
        net = nn.Sequential(nn.Linear(4, 4))
        model = torch.compile(net, backend="eager")
        model(X)
        fired = []
        net[0].register_forward_hook(lambda *args: fired.append(1))
        model(X)
        assert not fired

    def test_blocks_that_end_in_another_order_leave_compiling_as_found(self):
        """Two threads that recorded at once left the process in eager mode for good."""
        torch.compiler.reset()
        nets = [nn.Sequential(nn.Linear(4, 4)) for _ in range(2)]
        first, second = (Recorder(net) for net in nets)
        first.__enter__()
        second.__enter__()
        for net in nets:
            torch.compile(net, backend="eager")(X)
        first.__exit__(None, None, None)
        second.__exit__(None, None, None)
        assert len(first) == len(second) == 1
        self.test_a_hook_on_a_compiled_model_is_silently_never_called()

    def test_the_blocks_of_one_recorder_may_run_in_several_threads(self):
        net = nn.Sequential(nn.Linear(4, 4))
        recorder, found = Recorder(net), []

        def record():
            with recorder:
                net(X)
            found.append(list(recorder))

        record()
        thread = threading.Thread(target=record)
        thread.start()
        thread.join()
        assert found == [["0"], ["0"]]

    def test_the_module_inside_a_compiled_one(self):
        torch.compiler.reset()
        net = nn.Sequential(nn.Linear(4, 4))
        model = torch.compile(net, backend="eager")
        model(X)
        with Recorder(net) as rec:
            y = model(X)
        assert torch.equal(rec["0"], y)

    def test_a_compiled_function_that_calls_modules(self):
        torch.compiler.reset()

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(4, 4)
                self.fast = torch.compile(lambda x: self.layer(x) + 1, backend="eager")

            def forward(self, x):
                return self.fast(x)

        model = Model()
        model(X)
        with Recorder(model) as rec:
            y = model(X)
        assert torch.equal(rec["layer"] + 1, y)
