"""Errors of loading, told with the file and the range they are about."""

from stoker.core.errors import StokerError


def located(error: Exception, key: str, span: tuple[int, int] | None = None) -> StokerError:
    """Return an error of the same class whose `where` names the key and the range; strange ones become a StokerError.

    The store's own name of the object, if it told one, says more than the key: it is kept.
    """
    place = f"{key} [{span[0]}, {span[1]})" if span else key
    if not isinstance(error, StokerError):
        return StokerError(f"loading failed with {type(error).__name__}", where=place, got=str(error)[:300])
    where = error.where if key in error.where else f"{error.where}: {key}" if error.where else key
    if span and "[" not in where:
        where += f" [{span[0]}, {span[1]})"
    return type(error)(error.what, where=where, expected=error.expected, got=error.got, remedy=error.remedy)
