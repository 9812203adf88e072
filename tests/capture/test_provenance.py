"""Small forwards show which additions are residual connections and which are not."""

import gc
import warnings
import weakref

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from repsim import RepsimWarning, without_residual
from repsim.capture import SiteFinder

A, B, C, D, E = (torch.randn(4, 4, generator=torch.Generator().manual_seed(i)) for i in range(5))
X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(9))


class Plain(nn.Module):
    """A model whose forward is a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def joins(function, *inputs):
    """The additions that are found in ``function(*inputs)``, with values of their summands."""
    inputs = inputs or (X.clone(),)
    found = []

    def keep(site, call, join):
        found.append((join.kind, join.skip.clone(), join.branch.clone()))

    model = Plain(function)
    with SiteFinder(model, keep):
        model(*inputs)
    return found


def kinds(function, *inputs):
    return [kind for kind, _, _ in joins(function, *inputs)]


def f(x):
    return F.linear(x, A)


def g(x):
    return F.linear(F.gelu(F.linear(x, B)), C)


def inplace(x):
    y = f(x)
    y += x
    return y


def inplace_on_the_skip(x):
    z = x * C[0]
    y = f(z)
    z += y
    return z


IDENTITY = {
    "operator": lambda x: x + f(x),
    "the branch first": lambda x: f(x) + x,
    "torch.add": lambda x: torch.add(x, f(x)),
    "keywords": lambda x: torch.add(input=f(x), other=x),
    "one keyword": lambda x: torch.add(x, other=f(x)),
    "method": lambda x: f(x).add(x),
    "radd": lambda x: torch.Tensor.__radd__(x, f(x)),
    "in place": inplace,
    "add_": lambda x: f(x).add_(x),
    "in place on the skip": inplace_on_the_skip,
    "out": lambda x: torch.add(x, f(x), out=torch.empty_like(x)),
    "through a norm": lambda x: x + f(F.layer_norm(x, (4,))),
    "through views": lambda x: x.reshape(6, 4) + f(x).flatten(0, 1),
    "through permutations": lambda x: x.transpose(1, 2) + f(x).permute(0, 2, 1),
    "through mT": lambda x: x.mT + f(x).mT,
    "through casts": lambda x: x.double().to(torch.float32) + f(x).to(torch.float64).float(),
    "through contiguous, clone, detach": lambda x: x.contiguous().clone() + f(x.detach()),
    "scaled skip": lambda x: 0.5 * x + f(x),
    "scaled skip, divided": lambda x: x / 3 + f(x),
    "scaled branch": lambda x: x + 0.5 * f(x),
    "layer scale": lambda x: x + A[0] * f(x),
    "drop path": lambda x: x + f(x).div(0.9) * x.new_empty(2, 1, 1).bernoulli_(0.9),
    "in-place change of the branch": lambda x: x + f(x).mul_(2).relu_(),
    "matmul with a weight": lambda x: x + x @ A,
    "addmm": lambda x: x + torch.addmm(A[0], x.view(-1, 4), B).view(x.shape),
    "operators of the dispatcher": lambda x: torch.ops.aten.add.Tensor(
        x, torch.ops.aten.linear(x, A)
    ),
    "einsum": lambda x: x + torch.einsum("bnc,cd->bnd", x, A),
    "a weight made on the way": lambda x: x + x @ (A - A.mean(0)),
    "parts of a projection": lambda x: x + torch.cat(F.linear(x, A).chunk(2, -1), -1),
    "attention": lambda x: (
        x + F.scaled_dot_product_attention(*F.linear(x, A[:, :]).expand(3, *x.shape))
    ),
    "an assignment in the branch": lambda x: x + assigned(x),
    "an assignment through a view": lambda x: x + assigned_in_view(x),
}


def assigned(x):
    y = torch.zeros_like(x)
    y[:, 1:] = f(x)[:, 1:]
    return y


def assigned_in_view(x):
    y = torch.zeros_like(x)
    y[:, 1:].copy_(f(x)[:, 1:])
    return y


@pytest.mark.parametrize("name", IDENTITY)
@pytest.mark.parametrize("gradients", [True, False])
def test_identity(name, gradients):
    x = X.clone().requires_grad_(gradients and name != "out")
    with torch.set_grad_enabled(gradients):
        assert kinds(IDENTITY[name], x) == ["identity"]


@pytest.mark.parametrize(("first", "alpha"), [(True, 1), (False, 1), (True, 3), (False, 3)])
def test_skip_and_branch_are_distinguished(first, alpha):
    def forward(x):
        return torch.add(*((x, f(x)) if first else (f(x), x)), alpha=alpha)

    ((_, skip, branch),) = joins(forward)
    torch.testing.assert_close(skip + branch, forward(X))
    torch.testing.assert_close(skip, X if first else alpha * X)
    torch.testing.assert_close(branch, (alpha if first else 1) * f(X))


def shortcut(x):
    return F.linear(F.layer_norm(x, (4,)), D)


PROJECTION = {
    "after the branch": lambda x: g(x) + shortcut(x),
    "before the branch": lambda x: shortcut(x) + g(x),
    "in place": lambda x: g(x).add_(shortcut(x)),
    "convolutions": lambda x: conv_block(x),
}


def conv_block(x):
    x = x.unsqueeze(1)
    w = torch.ones(2, 1, 1, 1)
    branch = F.conv2d(F.relu(F.conv2d(x, w)), torch.ones(2, 2, 1, 1))
    return branch + F.conv2d(x, -w)


@pytest.mark.parametrize("name", PROJECTION)
def test_projection(name):
    ((kind, skip, _),) = joins(PROJECTION[name])
    assert kind == "projection"
    if name != "convolutions":
        torch.testing.assert_close(skip, shortcut(X))


def test_projection_after_a_common_weight():
    def forward(x):
        h = F.relu(F.linear(x, E))
        return g(h) + shortcut(h)

    assert kinds(forward) == ["projection"]


def test_parallel_branches():
    found = joins(lambda x: x + f(x) + g(x) + F.linear(x, E))
    assert [kind for kind, _, _ in found] == ["identity", "parallel", "parallel"]
    torch.testing.assert_close(found[1][1], X)  # the skip of all branches
    torch.testing.assert_close(found[1][2], g(X))
    sums, model = [], Plain(lambda x: x + f(x) + g(x))
    with SiteFinder(model, lambda site, call, join: sums.append(join.summands[0].clone())):
        model(X.clone())
    torch.testing.assert_close(sums[1], X + f(X))
    assert kinds(lambda x: g(x) + (x + f(x))) == ["identity", "parallel"]


def test_sequential_branches_are_not_parallel():
    def forward(x):
        x = x + f(x)
        x = x + g(x)
        return x + F.linear(x, E)

    assert kinds(forward) == ["identity"] * 3


def rotary(x):
    q = f(x)
    rotated = torch.cat([-q[..., 2:], q[..., :2]], -1)
    return q * A[0] + rotated * A[1]


def response_normalisation(x):
    h = F.gelu(f(x))
    n = h.norm(dim=1, keepdim=True)
    return h + (A[0] + A[1] * (h * n))


def gate(x):
    h, c = f(x).sigmoid(), f(x).tanh()
    return h * x + (1 - h) * c


NONE = {
    "position embedding": lambda x: x + nn.Parameter(A[:3].clone().expand_as(x)),
    "position embedding, made by weights": lambda x: x + F.linear(torch.ones(2, 3, 4), A),
    "two embeddings": lambda x: F.embedding(x.argmax(-1), A) + F.embedding(x.argmin(-1), B),
    "rotary embedding": rotary,
    "response normalisation": response_normalisation,
    "attention next to an MLP": lambda x: attention(x) + g(x),
    "low-rank adapter": lambda x: F.linear(x, A) + F.linear(F.linear(x, B[:2]), C[:, :2]),
    "two projections": lambda x: F.linear(x, A) + F.linear(x, B),
    "two experts": lambda x: g(x) + F.linear(F.gelu(F.linear(x, D)), E),
    "no weight": lambda x: x + x.relu(),
    "a number": lambda x: f(x) + 1,
    "another shape": lambda x: x[:, :1] + f(x),
    "a bias": lambda x: f(x) + A[0],
    "part of the skip": lambda x: x[:, 1:] + f(x)[:, :-1],
    "scalars": lambda x: x.sum() + f(x).sum(),
    "with itself": lambda x: f(x) + f(x),
    "twice the value": lambda x: x + 2 * x,
    "what no module was given": lambda x: A[None].expand(2, 4, 4) + F.linear(x, A)[:, :1],
    "gate": gate,
    "products of activations": lambda x: x + (x @ x.mT).softmax(-1) @ x,
}


def attention(x):
    q, k, v = F.linear(x, D), F.linear(x, E), F.linear(x, B)
    return F.linear(F.scaled_dot_product_attention(q, k, v), A)


@pytest.mark.parametrize("name", NONE)
def test_no_residual(name):
    assert kinds(NONE[name]) == []


def test_an_overwritten_skip_is_no_skip():
    def forward(x):
        z = x * A[0]
        y = f(z)
        z.mul_(B[0])  # not what f was given
        return z + y

    def kept(x):
        z = x * A[0]
        y = f(z)
        return z + y

    assert kinds(forward) == []
    assert kinds(kept) == ["identity"]


def test_two_inputs_have_nothing_in_common():
    y = X.flip(0)
    assert kinds(lambda x, y: g(x) + shortcut(y), X.clone(), y) == []
    assert kinds(lambda x, y: g(x + y) + shortcut(y), X.clone(), y) == ["projection"]


def test_inputs_that_are_no_input():
    """A tensor that is not an input is a constant: a table, a mask."""
    other = torch.randn(2, 3, 4)
    assert kinds(lambda x: other + F.linear(other, A) + 0 * x) == []


@pytest.mark.slow
def test_tensors_are_not_kept_alive():
    alive = []

    def forward(x):
        for _ in range(3):
            x = x + f(x)
            alive.append(weakref.ref(x))
            gc.collect()
            assert sum(ref() is not None for ref in alive) == 1
        return x

    with torch.no_grad():
        assert kinds(forward) == ["identity"] * 3


def test_nothing_is_left_behind():
    x, model = X.clone(), Plain(lambda x: x + f(x))
    with SiteFinder(model):
        y = model(x)
    assert not vars(x)
    assert not vars(y)
    assert weakref.getweakrefcount(y) == 0


def test_stand_ins_take_the_place_of_the_sum():
    """Without its residual connections a block returns what its branches do, in every form."""

    class Block(nn.Module):
        def forward(self, x):
            y = f(x)
            assert (x + y) is y
            assert y.add(x) is y
            z = x * A[0]
            before = z.data_ptr()
            fz = f(z)
            z += fz
            assert torch.equal(z, fz)
            assert z.data_ptr() == before  # in place is in place
            out = torch.empty_like(x)
            assert torch.add(x, y, out=out) is out
            assert torch.equal(out, y)
            half = f(x).bfloat16()
            assert (x + half).dtype == torch.float32
            assert torch.equal(x + half, half.float())
            assert torch.equal(torch.add(x, y, alpha=2), 2 * y)
            return x + y

    model = nn.Sequential(Block())
    with without_residual(model, "0"):
        assert torch.equal(model(X), f(X))


def scripted(function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(function)


def test_a_module_that_computes_out_of_sight():
    def product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return x @ w

    class Dark(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(A.clone())
            self.product = scripted(product)

        def forward(self, x):
            return self.product(x, self.weight)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.dark = Dark()

        def forward(self, x):
            return x + self.dark(x)

    model, found = Outer(), []
    with SiteFinder(model, lambda site, call, join: found.append(join.kind)) as finder:
        model(X.clone())
    assert found == ["identity"]
    with pytest.warns(RepsimWarning, match="dark: its output was computed out of sight"):
        finder.warn("test")


def test_a_module_that_returns_a_constant():
    """As position embeddings that use only the dtype of x."""

    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(A.clone())
            self.register_buffer("table", torch.randn(2, 3, 4))
            self.cached = torch.randn(2, 3, 4)

        def forward(self, x, which):
            table = self.table
            return (table, self.weight.mean() * table, torch.ones(2, 3, 4), self.cached)[which]

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions = Positions()

        def forward(self, x):
            for which in range(3):
                x + self.positions(x, which)
            # Given no tensor, a module has computed nothing from one.
            return x + self.positions(None, 3)

    model, found = Outer(), []
    with SiteFinder(model, lambda site, call, join: found.append(join.kind)):
        model(X.clone())
    assert found == []


def test_sums_that_look_residual_are_found():
    cases = {
        "sum of a stack": lambda x: torch.stack([x, f(x)]).sum(0),
        "mean of a stack": lambda x: torch.stack([f(x), x]).mean(0),
        "sub in place of an addition": lambda x: x - (-f(x)),
        "addcmul in place of an addition": lambda x: torch.addcmul(x, A[0].expand_as(x), f(x)),
        "lerp in place of an addition": lambda x: torch.lerp(x, f(x), 0.5),
    }
    innocent = [
        lambda x: torch.stack([x, f(x)]),
        lambda x: torch.cat([x, f(x)]),
        lambda x: torch.stack([f(x), g(x)]).sum(0),
        lambda x: x - x.mean(),
        lambda x: x - A[0],
        lambda x: f(x) - g(x),
        lambda x: torch.exp(x - torch.maximum(x, f(x)).float()),
        lambda x: x * f(x),
    ]
    for what, forward in [*cases.items(), *((None, each) for each in innocent)]:
        model = Plain(forward)
        with SiteFinder(model) as finder:
            model(X.clone())
        if what is None:
            finder.warn("test")  # warnings are errors
        else:
            with pytest.warns(RepsimWarning, match=f"the model itself: {what}"):
                finder.warn("test")


LAYOUTS = {
    "convolution": (lambda x: F.conv2d(x, torch.ones(4, 4, 1, 1)), 1),
    "1d convolution": (lambda x: F.conv1d(x[..., 0], torch.ones(4, 4, 1)), 1),
    "batch norm": (lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4)), 1),
    "linear": (lambda x: F.linear(x, A), 3),
    "layer norm": (lambda x: F.layer_norm(x, (4,)), 3),
    "to channels last": (lambda x: conv(x).permute(0, 2, 3, 1), 3),
    "and back": (lambda x: F.gelu(conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 1),
    "transposed": (lambda x: conv(x).transpose(1, -1).contiguous(), 3),
    "to a sequence": (lambda x: conv(x).flatten(2).transpose(1, 2), 2),
    "from a sequence": (
        lambda x: F.linear(x, A).flatten(1, 2).transpose(1, 2).unflatten(2, (4, 4)),
        1,
    ),
    "reshaped in memory": (lambda x: conv(x).permute(0, 2, 3, 1).reshape(2, 16, 4), 2),
    "with a class token": (
        lambda x: torch.cat([torch.zeros(2, 1, 4), F.linear(x, A).flatten(1, 2)], 1),
        2,
    ),
    "pooled": (lambda x: F.max_pool2d(conv(x), 2), 1),
}


def conv(x):
    return F.conv2d(x, torch.ones(4, 4, 1, 1))


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_feature_axis_is_followed_where_all_axes_are_alike(name):
    make, axis = LAYOUTS[name]
    found = []

    def forward(x):
        z = make(x)
        # A branch that mixes tokens must not decide.
        return z + torch.einsum("...c,cd->...d", z, torch.ones(z.shape[-1], z.shape[-1]))

    model = Plain(forward)
    with SiteFinder(model, lambda site, call, join: found.append(join.channels)):
        model(torch.randn(2, 4, 4, 4))
    assert found == [axis]


def test_module_backward_hooks_hand_on_views():
    seen = []

    class Block(nn.Module):
        def forward(self, x):
            return x + f(x)

    block, x = Block(), X.clone().requires_grad_()
    block.register_full_backward_hook(lambda *_: None)
    model = nn.Sequential(block)
    with SiteFinder(model, lambda site, call, join: seen.append(join.kind)):
        model(x)
    assert seen == ["identity"]


def test_a_tensor_where_a_number_was():
    """The id of a freed tensor, used again for another one, means nothing."""

    def forward(x):
        for _ in range(200):
            f(x)  # dies at once
            x + torch.from_numpy(X.numpy().copy())

    with torch.no_grad():
        assert kinds(forward) == []
