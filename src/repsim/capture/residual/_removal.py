"""Running a model without some of its skip connections, in training too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode

from repsim._errors import CaptureError, InputError, LayerNotFoundError
from repsim.capture._hooks import eagerly, evaluating
from repsim.capture.layers._select import Layers, listing
from repsim.capture.layers._walk import named_layers, unwrap
from repsim.capture.residual._join import Join
from repsim.capture.residual._provenance import Provenance
from repsim.capture.residual._scopes import Scope, chosen_scopes, no_site
from repsim.capture.residual._sites import (
    ResidualSite,
    ResidualSites,
    SiteFinder,
    name_modules,
    site_of,
    warn_of_suspects,
)

__all__ = ["Removal", "without_residual"]


@contextmanager
def without_residual(
    model: nn.Module, block: Layers, *, branch: str | None = None
) -> Iterator[Removal]:
    """Run a model without the skip connections of a block, inside a ``with`` block.

    >>> import torch, repsim
    >>> from torch import nn
    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.mlp = nn.Linear(4, 4)
    ...     def forward(self, x):
    ...         return x + self.mlp(x)
    >>> _ = torch.manual_seed(0)
    >>> net, x = nn.Sequential(Block(), Block()), torch.ones(2, 4)
    >>> with repsim.without_residual(net, "1") as removed:
    ...     y = net(x)
    ...     y.sum().backward()  # a training step as any other
    >>> torch.equal(y, net[1].mlp(net[0](x)))
    True
    >>> removed.sites.labels
    ('1.mlp',)

    ``z + f(z)`` becomes ``f(z)``: the addition itself returns its branch. Outputs and gradients
    have the same bits as those of a model whose code was edited by hand. This holds for every
    forward inside the ``with`` block, in training and in evaluation. The model is not changed.

    Parameters
    ----------
    model : torch.nn.Module
        The model, in any wrapper.
    block : str, re.Pattern, module type, callable, or a list of these
        The module or modules whose skips to remove, at any depth inside: ``"blocks.3"``,
        ``"layer1"`` for a whole stage, ``"blocks.*"``, as in :func:`repsim.capture.select_layers`;
        ``""`` is the model itself. A module with an exact name must hold a skip.
    branch : str, optional
        Remove only the skip of this branch: the label of a site (``"blocks.3.attn"``) or the label
        inside the block (``"attn"``). By default all skips.

    Yields
    ------
    Removal
        Its ``sites`` are the connections removed so far.

    Raises
    ------
    LayerNotFoundError
        There is no such block (on entry), or it did not run (at the end of the forward).
    CaptureError
        A block holds no residual connection, or not that branch; raised at the end of the forward
        with a list of the sites. Or the model runs in several threads (DataParallel on many
        devices).
    InputError
        `block` is none of the above.

    Warns
    -----
    RepsimWarning
        A block may hold a further skip, in scripted code or in an operation that is no addition.

    Notes
    -----
    The paper *retrained* the model without the skips of block i. To repeat it, train inside the
    ``with`` block, as in the example. Removing a skip from a trained model is a different
    experiment.

    - A projected skip is removed together with its projection. The projection still runs (a batch
      norm in it still counts), but its parameters get no gradient.
    - Several branches on one skip (``x + f(x) + g(x)``) become ``f(x) + g(x)``: the skip is removed
      once, where it is added. In ``x + (f(x) + g(x))`` it belongs to both branches.
    - If the summands differ in dtype, for example under autocast, the branch takes that of the sum.
    - In each forward, additions are recognised by the origin of their summands
      (:func:`repsim.residual_sites`), starting from the inputs of the block. If a block is called
      and shows no skip, an error is raised.

    Activation checkpointing is safe if the backward pass is inside the ``with`` block: modules that
    run again there run without the skip too. Compiled code runs eagerly inside the block.

    Cost: about ten microseconds for each torch function inside the block, nothing outside it.

    References
    ----------
    Raghu et al. 2021, arXiv:2108.08810, section 5 and figure 8.
    """
    removal = Removal(model, block, branch)
    with removal.hooked():
        yield removal


class Removal:
    """The object that :func:`without_residual` yields; printing it shows a table.

    Attributes
    ----------
    sites : ResidualSites
        The connections removed so far, each once, in the order of their first removal. The calls
        of a block that runs several times in a forward count as one.
    """

    def __init__(self, model: nn.Module, block: Layers, branch: str | None) -> None:
        if branch is not None and not isinstance(branch, str):
            raise InputError(
                "without_residual: branch must be the label of one site.\n"
                f"  got {branch!r}\n  Nest two `with` blocks to remove two of several branches."
            )
        self._root = unwrap(model)
        self._branch = branch
        self._scopes = chosen_scopes(model, block)
        self._suspects: dict[str, str] = {}
        self._mode = Provenance(self._joined, self._suspected)
        self._removed: dict[str, ResidualSite] = {}
        self._open: Scope | None = None
        self._depth = 0  # a block may call itself
        self._in_root = False
        self._empty: Scope | None = None
        self._listing = False  # during a forward that only lists sites
        self._done = False

    @property
    def sites(self) -> ResidualSites:
        """The connections removed so far."""
        return ResidualSites(self._removed.values())

    def __repr__(self) -> str:
        return repr(self.sites)

    # -- the addition ----------------------------------------------------------------------------

    def _joined(self, join: Join) -> Tensor | None:
        scope, sites = self._open, [site_of(branch) for branch in join.branches()]
        assert scope is not None
        labels = [site.label for site in sites]
        within = [label.removeprefix(f"{scope.name}.") for label in labels]
        if self._branch not in (None, *labels, *within):
            scope.others += labels
            return None
        if join.kind == "parallel":
            if self._branch is None:
                return None  # its skip went with the first branch; the branches still add up
            raise CaptureError(
                f"without_residual: branch {self._branch!r} has no skip of its own: it is added "
                f"to a sum that holds the skip already.\n  Remove that: {listing(scope.others)}"
            )
        scope.removed += 1
        for site in sites:
            self._removed.setdefault(site.label, site)
        return join.branch

    def _suspected(self, inside: tuple[str, ...], what: str) -> None:
        if self._branch is None:  # all skips of the blocks are to be removed
            self._suspects.setdefault(inside[-1] if inside else "", what)

    # -- hooks -----------------------------------------------------------------------------------

    @contextmanager
    def hooked(self) -> Iterator[Removal]:
        """Remove the skips in every forward until the block ends."""
        names = {id(module): name for name, module in named_layers(self._root).items()}
        inside = {
            names[id(module)]: module
            for scope in self._scopes
            for module in scope.module.modules()
            if module is not scope.module and id(module) in names
        }
        with ExitStack() as stack:
            stack.enter_context(eagerly())
            name_modules(self._mode, inside, stack)
            for handle in self._register():
                stack.callback(handle.remove)
            stack.callback(self._end)
            yield self
            self._check_ran()
            warn_of_suspects("without_residual", self._suspects)

    def _register(self) -> Iterator[Any]:
        # Functions and not bound methods, which would break in a deep copy of the model. A copy
        # made inside the block runs without the skip too, until the block ends.
        def hook(method: Callable[..., None]) -> Callable[..., None]:
            return lambda *args: None if self._done or self._listing else method(*args)

        # With `prepend` later hooks run first, because a block ends before the model does.
        root = self._root
        yield root.register_forward_pre_hook(hook(self._enter_root))
        yield root.register_forward_hook(hook(self._leave_root), prepend=True, always_call=True)
        yield root.register_forward_hook(hook(self._finish_root), prepend=True, with_kwargs=True)
        for scope in self._scopes:
            enter, module = partial(self._enter, scope), scope.module
            yield module.register_forward_pre_hook(hook(enter), with_kwargs=True)
            yield module.register_forward_hook(hook(self._leave), prepend=True, always_call=True)
            finish = hook(self._finish)
            yield module.register_forward_hook(finish, prepend=True, with_kwargs=True)

    def _enter_root(self, *_: object) -> None:
        self._close()  # an interrupted forward did not do so
        self._in_root, self._empty = True, None

    def _finish_root(self, _module: nn.Module, args: Any, kwargs: Any, _output: object) -> None:
        """Runs when the forward succeeded: its input is known, so sites can be listed."""
        if self._empty is not None:
            raise no_site(self._empty, self._scopes, self._branch, self._list(args, kwargs))
        self._check_ran(lambda: self._list(args, kwargs))

    def _leave_root(self, *_: object) -> None:
        """Runs in any case."""
        self._in_root = False

    def _enter(self, scope: Scope, module: nn.Module, args: object, kwargs: object) -> None:
        if getattr(module, "_is_replica", False):
            raise CaptureError(
                f"without_residual: {scope.name!r} runs in a DataParallel replica.\n"
                "  Use one device, or DistributedDataParallel: a process for each."
            )
        self._depth += 1
        if self._depth > 1:
            return
        self._open = scope
        scope.ran, scope.removed, scope.others = True, 0, []
        self._mode.reset()
        self._mode.begin((args, kwargs))
        self._mode.stack.append(scope.name)
        # Only inside the block, so code outside is not slowed down, and a backward pass that runs
        # the block again finds the mode in its thread.
        self._mode.__enter__()  # type: ignore[no-untyped-call]

    def _finish(self, module: nn.Module, args: Any, kwargs: Any, output: object) -> None:
        """Runs when the block succeeded."""
        scope = self._open
        if scope is None or self._depth > 1:
            return
        self._mode.returned(module, (args, kwargs), output)
        scope.held |= scope.removed > 0
        if not scope.removed and (scope.exact or scope.held):
            if not self._in_root:
                raise no_site(scope, self._scopes, self._branch, None)
            self._empty = self._empty or scope

    def _leave(self, *_: object) -> None:
        """Runs in any case."""
        if self._open is not None:
            self._depth -= 1
            if self._depth == 0:
                self._close()

    def _end(self) -> None:
        self._close()
        self._done = True

    def _close(self) -> None:
        if self._open is not None and self._is_on_top():
            self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._open, self._depth = None, 0
        self._mode.stack.clear()
        self._mode.reset()

    def _is_on_top(self) -> bool:
        current: object = _get_current_function_mode()  # type: ignore[no-untyped-call]
        return current is self._mode

    # -- errors ----------------------------------------------------------------------------------

    def _check_ran(self, sites: Callable[[], ResidualSites] | None = None) -> None:
        idle = [scope.name for scope in self._scopes if scope.exact and not scope.ran]
        if idle or not any(scope.ran for scope in self._scopes):
            raise LayerNotFoundError(
                f"without_residual: did not run: {listing(idle or [s.name for s in self._scopes])}."
                "\n  Call the model inside the block, by model(x) and not model.forward(x)."
            )
        if not self._removed:
            scope = next((each for each in self._scopes if each.others), self._scopes[0])
            raise no_site(scope, self._scopes, self._branch, None if sites is None else sites())

    def _list(self, args: Any, kwargs: Any) -> ResidualSites:
        self._listing = True
        try:
            with evaluating(self._root), torch.no_grad(), SiteFinder(self._root) as finder:
                self._root(*args, **kwargs)
                return finder.sites()
        finally:
            self._listing = False
