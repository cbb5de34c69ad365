"""Pages that the log says live on a device, after the process that had them there is gone.

Their committed bytes are in the store, so they can be read at once, with a device or without. `recall` brings them to a
device again, or logs that they live on the host where there is none.
"""

import msgspec

from stoker.pages.devices.copies import DevicePages
from stoker.pages.errors import DeviceError
from stoker.pages.frames import Location, Residency


class Recalled(msgspec.Struct, frozen=True):
    """Pages that are on the device again, and pages that stay on the host; `reason` tells why they do."""

    on_device: list[int]
    on_host: list[int]
    reason: str = ""


def recall(copies: DevicePages, device: str = "") -> Recalled:
    """Bring all pages whose place is a device to one of this process; those that do not fit there stay on the host."""
    wanted = away(copies)
    on_device: list[int] = []
    reason = ""
    try:
        copies.home(device)
        for page, mode in wanted:
            copies.push([page], device, mode=mode)
            on_device.append(page)
    except DeviceError as error:
        reason = str(error)
    rest = [page for page, _ in wanted[len(on_device) :]]
    if rest:
        with copies.store.batch() as batch:
            for page in rest:
                batch.move(page, Location.HOST, Residency.HOST)
    return Recalled(on_device, rest, reason)


def away(copies: DevicePages) -> list[tuple[int, str]]:
    """Return pages that live on a device by the log and have no copy in this process, with the mode of memory."""
    live = copies.store.arena.live_slots()
    chosen = live[live["location"] != Location.HOST]
    modes = {int(row["id"]): "unified" if row["location"] == Location.UNIFIED else "device" for row in chosen}
    return [(page, mode) for page, mode in sorted(modes.items()) if not copies.has(page)]
