"""A model without some skips is the model whose code was edited by hand, to the last bit."""

import copy
import threading
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import repsim
from packages import timm, torchvision, transformers
from repsim import CaptureError, InputError, LayerNotFoundError, without_residual

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _no_mode_is_left():
    yield
    assert torch.overrides._len_torch_function_stack() == 0


class Residual(nn.Module):
    """A block around a branch, with the addition written in some way."""

    def __init__(self, add=torch.add, width=4):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Linear(width, width)
        self.add = add

    def forward(self, x):
        return self.add(x, self.mlp(self.norm(x)))


def small(n=3):
    torch.manual_seed(0)
    return nn.Sequential(*(Residual() for _ in range(n)))


def x_small():
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(2), requires_grad=True)


def vit(**options):
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        depth=3,
        embed_dim=24,
        num_heads=2,
        init_values=0.5,
        **options,
    )


def step(model, x, seed=0):
    """Output, gradients of input and parameters, buffers after a forward and a backward pass."""
    torch.manual_seed(seed)
    x = x.detach().clone().requires_grad_()
    model.zero_grad()
    y = model(x)
    y = getattr(y, "last_hidden_state", y)
    y.square().sum().backward()
    grads = {k: None if p.grad is None else p.grad.clone() for k, p in model.named_parameters()}
    return {
        "y": y.detach(),
        "x": x.grad,
        **grads,
        **{k: b.clone() for k, b in model.named_buffers()},
    }


def same(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        other = b[key]
        assert (value is None) == (other is None), key
        assert value is None or (value.dtype == other.dtype and torch.equal(value, other)), key


def hooks(model):
    return {
        k: (m.training, len(m._forward_hooks), len(m._forward_pre_hooks))
        for k, m in model.named_modules()
    }


def vit_block(self, x, **_):
    x = self.drop_path1(self.ls1(self.attn(self.norm1(x))))
    return self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def vit_block_attention_only(self, x, **_):
    x = self.drop_path1(self.ls1(self.attn(self.norm1(x))))
    return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def basic_block(self, x):
    if self.downsample is not None:
        self.downsample(x)  # it still runs, because its batch norm keeps counting
    out = self.relu(self.bn1(self.conv1(x)))
    return self.relu(self.bn2(self.conv2(out)))


def hf_block(self, hidden_states, *_, **__):
    hidden_states = self.attention(self.layernorm_before(hidden_states))
    hidden_states = hidden_states[0] if isinstance(hidden_states, tuple) else hidden_states
    return self.mlp(self.layernorm_after(hidden_states))


def hf_vit():
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
    )
    return transformers.ViTModel(config)


def resnet():
    torch.manual_seed(0)
    return torchvision.models.resnet18()


EDITED = {
    "timm vit": (vit, "blocks.1", None, lambda m: m.blocks[1], vit_block),
    "timm vit, drop path": (
        lambda: vit(drop_path_rate=0.4),
        "blocks.1",
        None,
        lambda m: m.blocks[1],
        vit_block,
    ),
    "timm vit, attention": (
        vit,
        "blocks.1",
        "attn",
        lambda m: m.blocks[1],
        vit_block_attention_only,
    ),
    "timm vit, attention, by label": (
        vit,
        "blocks.1",
        "blocks.1.attn",
        lambda m: m.blocks[1],
        vit_block_attention_only,
    ),
    "torchvision resnet, identity": (resnet, "layer2.1", None, lambda m: m.layer2[1], basic_block),
    "torchvision resnet, projection": (
        resnet,
        "layer2.0",
        None,
        lambda m: m.layer2[0],
        basic_block,
    ),
    "HF ViT": (hf_vit, "layers.1", None, lambda m: m.layers[1], hf_block),
}


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", EDITED)
def test_the_same_bits_as_code_edited_by_hand(name, training):
    make, block, branch, find, forward = EDITED[name]
    model, edited = make().train(training), make().train(training)
    x = IMAGES
    whole = step(copy.deepcopy(model), x)
    before = hooks(model)
    with without_residual(model, block, branch=branch) as removed:
        ours = [step(model, x, seed) for seed in (0, 1)]  # every forward, not the first alone
    assert hooks(model) == before
    target = find(edited)
    target.forward = forward.__get__(target)
    same(ours[0], step(edited, x, 0))
    same(ours[1], step(edited, x, 1))
    assert not torch.equal(ours[0]["y"], whole["y"])  # the skip was there
    assert len(removed.sites) == (2 if branch is None and "vit" in name.lower() else 1)
    after = step(make().train(training), x)
    same(after, whole)
    with torch.no_grad():  # and nothing stays
        model.eval()
        edited.eval()
        assert not torch.equal(model(x)[0], edited(x)[0])


def test_projection_parameters_get_no_gradient():
    model = resnet()
    with without_residual(model, "layer2.0"):
        gradients = step(model, IMAGES)
    assert gradients["layer2.0.downsample.0.weight"] is None
    assert gradients["layer2.0.conv1.weight"] is not None


def test_without_gradients_and_in_inference_mode():
    model = vit().eval()
    with without_residual(model, "blocks.1"):
        with torch.no_grad():
            y = model(IMAGES)
        with torch.inference_mode():
            z = model(IMAGES)
    edited = vit().eval()
    edited.blocks[1].forward = vit_block.__get__(edited.blocks[1])
    assert torch.equal(y, edited(IMAGES))
    assert torch.equal(z, y)


def by_hand(model, x, blocks):
    for i, block in enumerate(model):
        x = block.mlp(block.norm(x)) if i in blocks else block(x)
    return x


@pytest.mark.parametrize(
    ("block", "blocks"),
    [
        ("1", [1]),
        (["0", "2"], [0, 2]),
        ("*", [0, 1, 2]),
        ("[01]", [0, 1]),
        (Residual, [0, 1, 2]),
        (lambda name, module: name == "2", [2]),
        (["0", "0.mlp", "0.*"], [0]),
    ],
)
def test_ways_to_name_blocks(block, blocks):
    model, x = small(), x_small()
    with without_residual(model, block) as removed:
        y = model(x)
    assert torch.equal(y, by_hand(model, x, blocks))
    assert removed.sites.labels == tuple(f"{i}.mlp" for i in blocks)
    assert "0.mlp" in repr(removed) or 0 not in blocks


def test_a_stage():
    model = resnet().eval()
    with without_residual(model, "layer3") as removed, torch.no_grad():
        y = model(IMAGES)
    assert removed.sites.labels == ("layer3.0.conv2", "layer3.1.conv2")
    for block in model.layer3:
        block.forward = basic_block.__get__(block)
    assert torch.equal(y, model(IMAGES))


def test_the_model_itself():
    model = Residual()
    with without_residual(model, ""):
        y = model(torch.ones(2, 4))
    assert torch.equal(y, model.mlp(model.norm(torch.ones(2, 4))))


def test_blocks_called_without_the_model():
    model, x = small(), x_small()
    with without_residual(model, "1"):
        assert torch.equal(model[1](x), model[1].mlp(model[1].norm(x)))
        assert torch.equal(model[0](x), x + model[0].mlp(model[0].norm(x)))
    vision = vit().eval()
    with without_residual(vision, "blocks.1"), torch.no_grad():
        y = vision.forward_features(IMAGES)
        assert torch.equal(vision.forward_head(y), vision(IMAGES))


def test_the_first_skip_of_a_whole_stack_of_blocks():
    """Closed form: skip and branch of known multiples. See also the norm ratios."""

    class Scale(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.norm = nn.LayerNorm(2, eps=0, elementwise_affine=False)
            self.mlp = nn.Linear(2, 2, bias=False)
            self.mlp.weight.data = c * torch.eye(2)

        def forward(self, x):
            return x + self.mlp(self.norm(x))

    u = torch.tensor([[1.0, -1.0]])
    net = nn.Sequential(Scale(0.5), Scale(2.0))
    assert torch.equal(net(3 * u), 5.5 * u)
    with without_residual(net, "0"):
        assert torch.equal(net(3 * u), 2.5 * u)
    with without_residual(net, "1"):
        assert torch.equal(net(3 * u), 2 * u)


def test_parallel_branches_stay_in_the_sum():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return x + self.a(x) + self.b(x)

    torch.manual_seed(0)
    model, x = nn.Sequential(Two()), x_small()
    expected = model[0].a(x) + model[0].b(x)
    for branch in (None, "a"):
        with without_residual(model, "0", branch=branch) as removed:
            assert torch.equal(model(x), expected)
        assert removed.sites.labels == ("0.a",)
    message = r"branch 'b' has no skip of its own.*\n  Remove that: '0.a'"
    with pytest.raises(CaptureError, match=message), without_residual(model, "0", branch="b"):
        model(x)


def test_a_block_that_runs_several_times():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Residual()

        def forward(self, x):
            return self.block(self.block(x))

    model, x = Twice(), x_small()
    with without_residual(model, "block") as removed:
        y = model(x)
    f = lambda z: model.block.mlp(model.block.norm(z))  # noqa: E731
    assert torch.equal(y, f(f(x)))
    assert removed.sites.labels == ("block.mlp",)


def test_a_block_that_calls_itself():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp = nn.Linear(4, 4)

        def forward(self, x, depth=0):
            if depth == 0:
                x = self(x, 1)
            return x + self.mlp(x)

    model, x = nn.Sequential(Nested()), x_small()
    with without_residual(model, "0"):
        y = model(x)
    assert torch.equal(y, model[0].mlp(model[0].mlp(x)))


def test_nested():
    model, x = vit().eval(), IMAGES
    with torch.no_grad():
        with without_residual(model, "blocks.1"):
            both = model(x)
        with without_residual(model, "blocks.1", branch="attn"):
            with without_residual(model, "blocks.1", branch="mlp"):
                assert torch.equal(model(x), both)
            one = model(x)
        with without_residual(model, "blocks.1", branch="mlp"), without_residual(model, "blocks.0"):
            two = model(x)
    model.blocks[1].forward = vit_block_attention_only.__get__(model.blocks[1])
    assert torch.equal(model(x), one)
    assert not torch.equal(two, one)


def test_autocast():
    model, edited = vit(), vit()

    def forward(self, x, **_):
        x = self.ls1(self.attn(self.norm1(x))).float()  # the dtype of the sum
        return self.ls2(self.mlp(self.norm2(x))).float()

    edited.blocks[1].forward = forward.__get__(edited.blocks[1])
    with torch.autocast("cpu", torch.bfloat16), without_residual(model, "blocks.1"):
        ours = step(model, IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        same(ours, step(edited, IMAGES))


def test_second_derivatives():
    model, edited = small(), small()

    def penalty(model):
        x = x_small()
        (g,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        g.square().sum().backward()
        return [p.grad for p in model.parameters()]

    edited[1].forward = lambda x: edited[1].mlp(edited[1].norm(x))
    with without_residual(model, "1"):
        ours = penalty(model)
    for a, b in zip(ours, penalty(edited), strict=True):
        assert torch.equal(a, b)


def test_functional_transforms():
    model, x = small(), x_small().detach()
    edited = small()
    edited[1].forward = lambda x: edited[1].mlp(edited[1].norm(x))
    with without_residual(model, "1"):
        ours = torch.func.vmap(torch.func.jacrev(model))(x)
    torch.testing.assert_close(ours, torch.func.vmap(torch.func.jacrev(edited))(x))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("around", ["block", "part"])
def test_activation_checkpointing(reentrant, around):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = small()

        def forward(self, x):
            for block in self.blocks:
                if around == "block":
                    x = checkpoint(block, x, use_reentrant=reentrant)
                else:
                    f = checkpoint(block.mlp, block.norm(x), use_reentrant=reentrant)
                    x = block.add(x, f)
            return x

    model, edited = Checkpointed(), small()
    edited[1].forward = lambda x: edited[1].mlp(edited[1].norm(x))
    x = x_small()
    if around == "part":  # the addition is the model's own
        edited[0].forward = lambda x: edited[0].mlp(edited[0].norm(x))
        edited[2].forward = lambda x: edited[2].mlp(edited[2].norm(x))
    with without_residual(model, "blocks.1" if around == "block" else ""):
        ours = step(model, x)
    theirs = step(edited, x)
    same(ours, {k if k in ("x", "y") else f"blocks.{k}": v for k, v in theirs.items()})


def test_timm_checkpointing():
    model, edited = vit(), vit()
    model.set_grad_checkpointing()
    edited.blocks[1].forward = vit_block.__get__(edited.blocks[1])
    with without_residual(model, "blocks.1"):
        same(step(model, IMAGES), step(edited, IMAGES))


def test_wrappers(unchanged):
    model, x = small(), x_small()
    expected = by_hand(model, x, [1])
    for wrapped in (
        nn.DataParallel(model),
        torch.compile(model, backend="eager"),
        nn.DataParallel(nn.DataParallel(model)),
    ):
        with unchanged(model):
            with without_residual(wrapped, "1"):
                y = wrapped(x)
            assert torch.equal(y, expected)


def test_a_model_compiled_and_run_before():
    model, x = small(), x_small()
    compiled = torch.compile(model, backend="eager")
    whole = compiled(x)
    with without_residual(compiled, "1"):
        assert torch.equal(compiled(x), by_hand(model, x, [1]))
    assert torch.equal(compiled(x), whole)


def test_replicas_are_refused():
    model, x = small(), x_small()
    model[1]._is_replica = True
    with (
        pytest.raises(CaptureError, match="'1' runs in a DataParallel replica"),
        without_residual(model, "1"),
    ):
        model(x)


def test_a_forward_in_another_thread():
    model, x = small(), x_small()
    results = []
    with without_residual(model, "1"):
        thread = threading.Thread(target=lambda: results.append(model(x)))
        thread.start()
        thread.join()
    assert torch.equal(results[0], by_hand(model, x, [1]))


def test_other_modes_and_hooks():
    model, x = small(), x_small()
    seen = []
    model[1].register_forward_pre_hook(
        lambda m, a: seen.append(torch.overrides._len_torch_function_stack())
    )
    model[1].register_forward_hook(
        lambda m, a, y: seen.append(torch.overrides._len_torch_function_stack())
    )
    with without_residual(model, "1"), torch.device("cpu"):
        y = model(x)
        y.sum().backward()
    assert torch.equal(y, by_hand(model, x, [1]))
    assert seen == [1, 1]  # torch.device's own alone: hooks run outside of ours
    model[1].register_full_backward_hook(lambda *_: None)
    with without_residual(model, "1"):
        assert torch.equal(model(x), y)


def test_with_a_recorder():
    model, x = small(), x_small()
    with without_residual(model, "1"), repsim.Recorder(model, "*") as rec:
        y = model(x)
    assert torch.equal(rec["1"], rec["1.mlp"])
    assert torch.equal(rec["2"], y)


# -- errors and warnings --------------------------------------------------------------------------


def test_unknown_blocks(unchanged):
    model = vit()
    with (
        unchanged(model),
        pytest.raises(LayerNotFoundError, match=r"(?s)no layer is called 'block.1'.*'blocks\.1"),
        without_residual(model, "block.1"),
    ):
        pass
    with pytest.raises(InputError), without_residual(model, 3):
        pass
    with (
        pytest.raises(InputError, match="Leave out the ':k'"),
        without_residual(model, "blocks.1:0"),
    ):
        pass
    with (
        pytest.raises(InputError, match="branch must be the label"),
        without_residual(model, "blocks.1", branch=0),
    ):
        pass


def test_a_block_without_a_skip(unchanged):
    model = vit().train()
    model.blocks[0].eval()
    message = r"(?s)'patch_embed' holds no residual connection.*the model has: 'blocks.0.attn', 'bl"
    with (
        unchanged(model),
        pytest.raises(CaptureError, match=message),
        without_residual(model, "patch_embed"),
    ):
        model(IMAGES)
    with (
        pytest.raises(
            CaptureError, match=r"'norm' holds no .*\n.*residual_sites\(model, example\)"
        ),
        without_residual(model, "norm"),
    ):
        model.forward_features(IMAGES)
    message = "'blocks.0.norm1' holds no residual connection, nor do the other 5"
    with pytest.raises(CaptureError, match=message), without_residual(model, "blocks.*.norm?"):
        model(IMAGES)
    with pytest.raises(CaptureError, match="the model has: none"):
        net = nn.Sequential(nn.Linear(2, 2))
        with without_residual(net, "0"):
            net(torch.ones(1, 2))


def test_listing_the_sites_leaves_no_trace():
    """It takes another forward in evaluation mode, so batch norm counts only the first."""
    model, twin = resnet(), resnet()
    with pytest.raises(CaptureError, match="layer4.1.conv2"), without_residual(model, "conv1"):
        model(IMAGES)
    twin(IMAGES)
    for (name, ours), theirs in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(ours, theirs), name
    assert all(module.training for module in model.modules())


def test_a_skip_from_outside_the_block():
    config = transformers.BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        vocab_size=50,
    )
    model, ids = transformers.BertModel(config).eval(), torch.arange(6).view(1, 6)
    name = "encoder.layer.0.attention"
    message = (
        f"(?s)comes from outside of it: name the module around it, '{name}', and branch='{name}"
    )
    with pytest.raises(CaptureError, match=message), without_residual(model, f"{name}.output"):
        model(ids)
    with without_residual(model, name) as removed, torch.no_grad():
        y = model(ids).last_hidden_state
    assert removed.sites.labels == (f"{name}.output.dense",)
    output = model.encoder.layer[0].attention.output
    output.forward = lambda h, _: output.LayerNorm(output.dropout(output.dense(h)))
    assert torch.equal(y, model(ids).last_hidden_state)


def test_an_unknown_branch():
    model = vit()
    message = r"'blocks.1' has no residual branch 'atn'.\n  it has: 'blocks.1.attn', 'blocks.1.mlp'"
    with (
        pytest.raises(CaptureError, match=message),
        without_residual(model, "blocks.1", branch="atn"),
    ):
        model(IMAGES)


def test_a_block_that_does_not_run():
    model = nn.ModuleDict({"used": Residual(), "idle": Residual()})
    model.forward = lambda x: model["used"](x)
    with (
        pytest.raises(LayerNotFoundError, match="did not run: 'idle'"),
        without_residual(model, "idle"),
    ):
        model(torch.ones(2, 4))
    other = small()
    with (
        pytest.raises(LayerNotFoundError, match="did not run: '1'"),
        without_residual(small(), "1"),
    ):
        other(torch.ones(2, 4))  # not the model that was meant
    with (
        pytest.raises(LayerNotFoundError, match="not model.forward"),
        without_residual(model, "used"),
    ):
        model["used"].forward(torch.ones(2, 4))


class Moody(nn.Module):
    """Its addition is visible in some calls only."""

    def __init__(self):
        super().__init__()
        self.mlp = nn.Linear(4, 4)
        self.plain = True

    def forward(self, x):
        f = self.mlp(x)
        return x + f if self.plain else torch.stack([x, f]).sum(0)


@pytest.mark.parametrize("block", ["0", "*"])
def test_a_skip_that_disappears_later(block):
    model, x = nn.Sequential(Moody()), x_small()
    stacked = pytest.warns(repsim.RepsimWarning, match="without_residual: .*\n  0: sum of a stack")
    with stacked, without_residual(model, block):
        model(x)
        model[0].plain = False
        with pytest.raises(CaptureError, match="holds no residual connection in this call, unlike"):
            model(x)
        model[0].plain = True
        assert torch.equal(model(x), model[0].mlp(x))


class BoomError(Exception):
    pass


class Explosive(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error, self.block = error, Residual()

    def forward(self, x):
        y = self.block(x)
        if self.error is not None:
            raise self.error
        return y


@pytest.mark.parametrize("error", [BoomError(), KeyboardInterrupt()])
def test_a_forward_that_raises(error, unchanged):
    model, x = nn.Sequential(Explosive(error)), x_small()
    with unchanged(model):
        with pytest.raises(type(error)), without_residual(model, "0"):
            model(x)
        assert torch.overrides._get_current_function_mode() is None
        with without_residual(model, "0"):
            with pytest.raises(type(error)):
                model(x)
            model[0].error = None
            y = model(x)  # and the next call works
            assert torch.overrides._get_current_function_mode() is None
        assert torch.overrides._get_current_function_mode() is None
    inner = model[0].block
    assert torch.equal(y, inner.mlp(inner.norm(x)))


def test_hooks_that_raise_before_ours(unchanged):
    model, x = small(), x_small()
    first = [True]

    def boom(*_):
        if first.pop() if first else False:
            raise BoomError

    handle = model[1].register_forward_pre_hook(boom)
    with without_residual(model, "1"):
        with pytest.raises(BoomError):
            model(x)
        assert torch.overrides._get_current_function_mode() is None
        assert torch.equal(model(x), by_hand(model, x, [1]))
    handle.remove()


def test_nothing_is_tracked_outside_the_block():
    model, x = small(), x_small()
    depths, outputs = [], []

    def note(_module, _inputs, output):
        depths.append(torch.overrides._len_torch_function_stack())
        outputs.append(output)

    for block in model:
        block.mlp.register_forward_hook(note)
    with without_residual(model, "1"):
        y = model(x)
        assert torch.overrides._len_torch_function_stack() == 0
        assert [weakref.getweakrefcount(each) for each in outputs] == [0, 0, 0]
    assert depths == [0, 1, 0]
    assert not vars(y)


def test_a_copy_of_the_model():
    """Averaged weights are kept in a copy: it runs like the original, and afterwards unchanged."""
    model, x = small(), x_small()
    expected, whole = by_hand(model, x, [1]), model(x)
    with without_residual(model, "1"):
        twin = copy.deepcopy(model)
        for each in (twin, model, twin):
            assert torch.equal(each(x), expected)
            assert torch.overrides._get_current_function_mode() is None
    assert torch.equal(twin(x), whole)
    assert torch.equal(model(x), whole)


def test_training_without_a_skip():
    """As in the paper: a model learns without the skip, in the same steps as one edited by hand."""
    model, edited = small(), small()
    edited[1].forward = lambda x: edited[1].mlp(edited[1].norm(x))
    x, target = x_small().detach(), torch.ones(5, 4)

    def train(net):
        optimiser = torch.optim.AdamW(net.parameters(), lr=0.05)
        for _ in range(5):
            optimiser.zero_grad()
            nn.functional.mse_loss(net(x), target).backward()
            optimiser.step()
        return net.state_dict()

    with without_residual(model, "1"):
        ours = train(model)
    theirs = train(edited)
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key
