"""What a caller names as the place of a store: a path, an address, or a store of Zarr."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from repsim._errors import InputError
from repsim._missing import missing_package
from repsim._options import as_path, got
from repsim.storage.places._local import LocalPlace

if TYPE_CHECKING:
    from repsim.storage.places._remote import RemotePlace

__all__ = ["Entries", "Place", "place_of", "zarr_for"]


class Entries(Protocol):
    """A journal that is open for writing."""

    entries: list[dict[str, Any]]

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add an entry; it is stored when this returns."""

    def restart(self) -> None:
        """Delete every entry."""

    def close(self) -> None:
        """Let other writers in."""


class Place(Protocol):
    """Where one Zarr group and its journal lie; see :class:`LocalPlace` for the methods."""

    zarr: tuple[Any, str]

    @property
    def parts_to_delete(self) -> str: ...

    def part(self, name: str) -> Place: ...
    def is_taken(self) -> bool: ...
    def is_empty(self) -> bool: ...
    def is_group(self) -> bool: ...
    def create(self, attributes: dict[str, Any]) -> None: ...
    def tidy(self) -> None: ...
    def sync(self, array: Any, folder: str, index: int) -> None: ...
    def absent(self, array: Any, folder: str, stop: int, start: int = 0) -> str | None: ...
    def lost(self, array: Any, folder: str, stop: int, start: int) -> str | None: ...
    def has_journal(self) -> bool: ...
    def journal(self, operation: str) -> Entries: ...
    def entries(self, operation: str) -> list[dict[str, Any]]: ...


def place_of(
    operation: str, argument: str, address: Any, storage_options: Mapping[str, Any] | None = None
) -> Place:
    """Return the place that a caller names.

    Parameters
    ----------
    operation, argument : str
        The function and its argument, for errors.
    address : path, str or zarr.abc.store.Store
        A path, also as ``file://``; an address with ``://``, which fsspec opens; or a store object
        of Zarr.
    storage_options : mapping, optional
        Options of fsspec for an address.
    """
    is_address = isinstance(address, str) and "://" in address
    if storage_options is not None and not (is_address and isinstance(storage_options, Mapping)):
        raise InputError(
            f"{operation}: storage_options must be a mapping, for an address like 's3://...'.\n"
            f"  {argument}: {got(address)}\n  got {got(storage_options)}"
        )
    if is_address and storage_options is None and address.startswith("file://"):
        address, is_address = address.removeprefix("file://"), False
    if is_address:
        return _of_address(operation, argument, address, dict(storage_options or {}))
    if hasattr(address, "supports_listing") and hasattr(address, "get"):  # a store of Zarr
        zarr_for(operation)
        from repsim.storage.places._remote import RemotePlace

        return RemotePlace(address, operation, str(address))
    return LocalPlace(Path(as_path(operation, argument, address)))


def _of_address(
    operation: str, argument: str, address: str, options: dict[str, Any]
) -> RemotePlace:
    zarr_for(operation)
    from zarr.storage import FsspecStore

    from repsim.storage.places._remote import RemotePlace

    try:
        store = FsspecStore.from_url(address, storage_options=options)
    except ImportError as error:  # fsspec, or what it needs for this kind of address
        raise ModuleNotFoundError(
            f"{operation} needs a package for {address!r}.\n  {error}", name=error.name
        ) from error
    # fsspec and its file systems have errors of many types for an address they cannot read.
    except Exception as error:
        raise InputError(
            f"{operation}: {argument} must be a path, or an address that fsspec opens.\n"
            f"  got {address!r}: {error}\n"
            f"  For example 's3://bucket/run.zarr', with storage_options= for its credentials."
        ) from error
    return RemotePlace(store, operation, address.rstrip("/"))


def zarr_for(operation: str) -> Any:
    """Return Zarr, or raise an error that says how to install it."""
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise missing_package(operation, error) or error from error
    return zarr
