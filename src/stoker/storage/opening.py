"""From a URL to a store."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from stoker.core.errors import UsageError
from stoker.core.registry import Registry
from stoker.storage.api import Store
from stoker.storage.layers.faulty import Faults, FaultyStore
from stoker.storage.layers.limits import LimitedStore
from stoker.storage.layers.prefix import PrefixStore
from stoker.storage.layers.retry import RetryPolicy, RetryStore
from stoker.storage.url import LAYER_OPTIONS, StoreURL, parse_url


class Opener(Protocol):
    """What an entry point of the group `stoker.stores` names.

    It checks its own options with `parsed.settings(...)`, which refuses unknown ones, and keeps `parsed.redacted` as
    the store's URL.
    """

    def __call__(self, parsed: StoreURL) -> Store: ...


STORES: Final[Registry[Opener]] = Registry(
    "stoker.stores", kind="store scheme", extras={"s3": "s3", "az": "azure", "gs": "s3"}
)
_NETWORK_ATTEMPTS: Final = 4


def open_store(url: str, *, create: bool = False) -> Store:
    """Open the store that `url` names: `scheme://host/path?option=value`, or a local path.

    With `create` a missing root folder is made. Any scheme takes these options, in this order from the store
    outwards: open_delay, read_delay, fail_ratio, short_ratio, fault_seed (faults on purpose); in_flight,
    read_bytes_per_second (ceilings); prefix; retry_attempts, retry_deadline (object stores: 4 tries by default).

    Raises UnknownNameError for a scheme nobody registered; UsageError for an unknown or bad option or credentials in
    the URL; MissingExtraError with the install command; NotFoundError for a missing root; DeniedError.
    """
    parsed = parse_url(url, create=create)
    opener = STORES.load(parsed.scheme)
    names = [option.name for option in LAYER_OPTIONS]
    given = {name: value for name, value in parsed.query.items() if name in names}
    settings = replace(parsed, query=given).settings(LAYER_OPTIONS)
    store = opener(parsed.without(names))
    try:
        return _layered(store, settings, given)
    except BaseException:
        store.close()
        raise


def _layered(store: Store, settings: Mapping[str, Any], given: Mapping[str, str]) -> Store:
    store = _faulty(store, settings, given)
    if settings["in_flight"] or settings["read_bytes_per_second"]:
        store = LimitedStore(store, settings["in_flight"], settings["read_bytes_per_second"])
    if settings["prefix"]:
        store = PrefixStore(store, settings["prefix"], url=store.url)
    attempts = settings["retry_attempts"] or (_NETWORK_ATTEMPTS if store.capabilities.io_mode == "network" else 1)
    if attempts > 1:
        return RetryStore(store, RetryPolicy(attempts, settings["retry_deadline"]))
    _refuse_idle("retry_deadline", given, needs="retry_attempts of 2 or more")
    return store


def _faulty(store: Store, settings: Mapping[str, Any], given: Mapping[str, str]) -> Store:
    faults = Faults(
        settings["open_delay"],
        settings["read_delay"],
        settings["fail_ratio"],
        settings["short_ratio"],
        settings["fault_seed"],
    )
    if faults != Faults(seed=faults.seed):
        return FaultyStore(store, faults)
    _refuse_idle("fault_seed", given, needs="a fault to inject, such as fail_ratio")
    return store


def _refuse_idle(name: str, given: Mapping[str, str], *, needs: str) -> None:
    """Raise UsageError for an option that would have no effect."""
    if name in given:
        raise UsageError("option has no effect by itself", where=name, remedy=f"it needs {needs}")
