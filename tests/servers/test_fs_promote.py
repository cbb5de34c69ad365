"""A volume of one node becomes one of masters while it is used."""

import itertools
import threading
from pathlib import Path

import pytest
from etcd_place import new_name

from stoker.core.errors import UsageError
from stoker.fs.journal import promoting
from stoker.fs.journal.servers import EtcdServers
from stoker.fs.meta import Volume, fsck
from stoker.fs.meta.calls import Create, ReadDir
from stoker.fs.meta.engines.urls import open_engine
from stoker.fs.meta.keys import ROOT


def names_in(volume: Volume) -> set[bytes]:
    names: set[bytes] = set()
    after = b""
    while listing := volume.run(ReadDir(ROOT, after)).entries:
        names |= {entry.name for entry in listing}
        after = listing[-1].name
    return names


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", [False, True])
def test_nothing_is_lost_while_somebody_writes(
    etcd_servers: EtcdServers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupted: bool,
) -> None:
    source, target = f"sqlite://{tmp_path}/x.db?sync=off", f"etcd://{etcd_servers.addresses}/{new_name()}"
    monkeypatch.setattr(promoting, "_STEP_BYTES", 2000)
    done: list[bytes] = []
    refused: list[str] = []
    with Volume.format(source) as volume:
        for number in range(300):
            volume.run(Create(ROOT, b"before-%03d" % number, 0o644))
            done.append(b"before-%03d" % number)

        def write() -> None:
            for number in itertools.count():
                try:
                    volume.run(Create(ROOT, b"during-%05d" % number, 0o644))
                except UsageError as error:
                    refused.append(str(error))
                    return
                done.append(b"during-%05d" % number)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            with open_engine(source) as old, open_engine(target, create=True) as new:
                if interrupted:
                    told: list[int] = []

                    def stop(text: str) -> None:
                        told.append(1)
                        if len(told) == 1:
                            raise KeyboardInterrupt

                    with pytest.raises(KeyboardInterrupt):
                        promoting.promote(old, new, target, told=stop)
                result = promoting.promote(old, new, target)
                assert promoting.promote(old, new, target).compared == 0, "once more changes nothing"
        finally:
            writer.join(timeout=60)
        assert result.compared > 300
        assert result.transactions > 0
        assert len(refused) == 1
        assert target in refused[0]
        assert names_in(volume) == set(done), "the old volume is still read"
    with Volume.open(target) as moved:
        assert names_in(moved) == set(done)
        assert fsck(moved.engine) == []
        moved.run(Create(ROOT, b"after", 0o644))
    with open_engine(source) as old, open_engine(target) as new, pytest.raises(UsageError, match="moved already"):
        promoting.promote(old, new, "etcd://elsewhere:1/x")


def test_a_place_that_is_taken_is_refused(etcd_servers: EtcdServers, tmp_path: Path) -> None:
    source, target = f"sqlite://{tmp_path}/x.db?sync=off", f"etcd://{etcd_servers.addresses}/{new_name()}"
    Volume.format(source).close()
    Volume.format(target).close()
    with open_engine(source) as old, open_engine(target) as new, pytest.raises(UsageError, match="another volume"):
        promoting.promote(old, new, target)
    with Volume.open(source) as volume:
        volume.run(Create(ROOT, b"still", 0o644))
