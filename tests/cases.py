"""Run related cases as one test."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest


def each(names: str | tuple[str, ...], values: Iterable[Any]) -> Callable[..., Any]:
    """Run a test for every value in turn: ``pytest.mark.parametrize`` as a loop inside one test.

    Use it for cases that need no separate test. Every case runs, even if an earlier one failed,
    and an error names its case::

        @each("estimator", ["biased", "unbiased"])
        @each(("n", "p"), [(20, 3), (8, 30)])
        def test_values(eager, n, p, estimator): ...

    Fixtures are made once, not once a case.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    cases = [dict(zip(names, (v,) if len(names) == 1 else v, strict=True)) for v in values]

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            failed: list[BaseException] = []
            skipped: list[BaseException] = []
            for case in cases:
                try:
                    test(*args, **kwargs, **case)
                except pytest.skip.Exception as reason:
                    skipped.append(reason)
                except (Exception, pytest.fail.Exception) as error:
                    error.add_note(f"case: {', '.join(f'{k}={v!r}' for k, v in case.items())}")
                    failed.append(error)
            if failed:
                raise failed[0] if len(failed) == 1 else BaseExceptionGroup("cases", failed)
            if len(skipped) == len(cases):
                raise skipped[0]

        signature = inspect.signature(test)
        missing = set(names) - set(signature.parameters)
        assert not missing, f"{test.__name__} has no argument {missing}"
        kept = [p for name, p in signature.parameters.items() if name not in names]
        run.__signature__ = signature.replace(parameters=kept)
        return run

    assert cases
    return decorate
