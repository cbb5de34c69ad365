"""The cluster map as a row of the volume: bytes with an epoch, which other rooms make and read."""

import errno
import struct
from typing import Final

from stoker.core.errors import CorruptError
from stoker.core.units import MiB
from stoker.fs.meta.answers import Answer, Content, Done
from stoker.fs.meta.calls import GetMap, PutMap
from stoker.fs.meta.context import Context
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.keys import CLUSTER_MAP

MAP_BYTES_MAX: Final = 1 * MiB
"""An entry of a journal must fit etcd, whose requests are of 1.5 MiB at most by default."""
_EPOCH: Final = struct.Struct(">Q")


def unpack_map_row(row: bytes) -> tuple[int, bytes]:
    """Return the epoch and the map of a row. Raises CorruptError."""
    if len(row) <= _EPOCH.size or not (epoch := _EPOCH.unpack_from(row)[0]):
        raise CorruptError("row of the cluster map is not readable", got=f"{len(row)} bytes")
    if len(row) > _EPOCH.size + MAP_BYTES_MAX:
        raise CorruptError("row of the cluster map is too large", expected="1 MiB at most", got=f"{len(row)} bytes")
    return epoch, row[_EPOCH.size :]


def put_map(context: Context, request: PutMap) -> Answer:
    """Replace the map. Refuses all but the superuser (EPERM), another map than was expected (ESTALE), EINVAL, EFBIG."""
    if not context.is_superuser:
        raise Refused(errno.EPERM)
    if len(request.data) > MAP_BYTES_MAX:
        raise Refused(errno.EFBIG)
    if not 0 <= request.expected_epoch < request.epoch or not request.data:
        raise Refused(errno.EINVAL)
    row = context.view.get(CLUSTER_MAP)
    epoch, data = (0, b"") if row is None else unpack_map_row(row)
    if (epoch, data) == (request.epoch, request.data):
        return Done()  # the answer was lost, and it is asked again
    if epoch != request.expected_epoch:
        raise Refused(errno.ESTALE)
    context.view.put(CLUSTER_MAP, _EPOCH.pack(request.epoch) + request.data)
    return Done()


def get_map(context: Context, request: GetMap) -> Answer:
    """Return the map, unless who asks has one that is as new."""
    row = context.view.get(CLUSTER_MAP)
    epoch, data = (0, b"") if row is None else unpack_map_row(row)
    return Content(data if epoch > request.known_epoch else b"")
