"""The kernel's table of mounts."""

from pathlib import Path

import pytest

from stoker.bench.workloads.mounts import mount_of

TABLE = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
30 22 0:40 / /mnt/data rw - nfs4 server:/export rw,vers=4.2
31 22 0:41 / /mnt/with\040space rw - tmpfs tmpfs rw,size=1g
32 22 0:42 / /mnt/share rw - cifs //server/share rw,username=me,password=hunter2
33 30 0:43 / /mnt/data rw - xfs /dev/nvme0n1 rw
broken line
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text(TABLE)
    return file


@pytest.mark.parametrize(
    ("path", "kind", "point"),
    [
        ("/somewhere", "ext4", "/"),
        ("/mnt/data/sub/file", "xfs", "/mnt/data"),
        ("/mnt/database", "ext4", "/"),
        ("/mnt/with space/x", "tmpfs", "/mnt/with space"),
    ],
)
def test_the_deepest_and_latest_mount_holds_the_path(table: Path, path: str, kind: str, point: str) -> None:
    mount = mount_of(path, table=table)
    assert mount is not None
    assert (mount.kind, mount.point) == (kind, point)


def test_a_password_among_the_options_is_hidden(table: Path) -> None:
    mount = mount_of("/mnt/share", table=table)
    assert mount is not None
    assert "hunter2" not in str(mount)
    assert "username=me" in mount.options


def test_an_unreadable_table_knows_nothing(tmp_path: Path) -> None:
    assert mount_of("/", table=tmp_path / "missing") is None


def test_this_machine_s_table_is_understood(tmp_path: Path) -> None:
    mount = mount_of(tmp_path)
    assert mount is not None
    assert mount.kind
