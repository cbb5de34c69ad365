"""The kernel's texts become numbers; what is not understood is left out."""

from pathlib import Path

import proc_texts as texts
from hypothesis import given
from hypothesis import strategies as st

from stoker.bench.run.hosts import parse
from stoker.bench.run.hosts.shell import clock_ns, parse_answer
from stoker.bench.run.hosts.sources import counted, read_all, snapshot


def test_disk_counters_of_old_kernels_are_filled_up_with_zeros() -> None:
    assert parse.parse_diskstats(texts.CLOUD)["xvdf"] == (120, 0, 9120, 10, 0, 0, 0, 0, 0, 10, 10, 0, 0, 0, 0, 0, 0)
    assert parse.parse_diskstats(texts.LAPTOP)["nvme0n1"][-2:] == (81221, 77517)


def test_interfaces_whose_name_touches_the_first_number_are_read() -> None:
    found = parse.parse_netdev(texts.NETDEV)
    assert list(found) == ["lo", "eth0", "bond0"]
    assert found["eth0"][0] == 1677060398 and found["eth0"][8] == 2203784


def test_sockets_cores_and_threads() -> None:
    x86 = {"model": "Example CPU @ 2.40GHz", "sockets": 2, "cores": 2, "logical_cpus": 4}
    assert parse.parse_cpuinfo(texts.CPUINFO_X86) == x86
    arm = {"model": "Example Board", "sockets": 1, "cores": 2, "logical_cpus": 2}
    assert parse.parse_cpuinfo(texts.CPUINFO_ARM) == arm
    assert parse.parse_cpuinfo("")["logical_cpus"] == 0


def test_small_texts() -> None:
    assert parse.parse_pairs("MemTotal:  528000 kB\nHugePages_Total:   0\npgpgin 12\n") == {
        "MemTotal": 528000,
        "HugePages_Total": 0,
        "pgpgin": 12,
    }
    assert parse.parse_loadavg("3.10 2.00 1.25 2/811 1234\n") == {
        "1min_hundredths": 310,
        "5min_hundredths": 200,
        "15min_hundredths": 125,
    }
    assert parse.parse_cpu("cpu  10 1 5 100 2 0 1 0 0 0\ncpu0 1 2\n")["idle"] == 100
    assert parse.parse_os_release("ID=rhel\nVERSION_ID=\"9.4\"\nNAME='A \\$ B'\n# x\n") == {
        "ID": "rhel",
        "VERSION_ID": "9.4",
        "NAME": "A $ B",
    }
    assert parse.parse_filesystems("nodev\tsysfs\n\text4\n") == ["sysfs*", "ext4"]
    assert parse.parse_cgroups("#subsys_name\thierarchy\nmemory\t0\t80\t1\n")[0]["enabled"] is True
    assert parse.parse_uptime("12.5 8.1\n") == 12.5
    assert parse.parse_uptime("soon") is None


def test_mounts_hide_what_may_be_a_secret() -> None:
    line = "36 35 0:50 / /mnt rw - cifs //filer/share rw,username=me,password=deep\n"
    (mount,) = parse.mount_rows(line)
    assert mount["point"] == "/mnt" and mount["type"] == "cifs"
    assert "deep" not in str(mount)


@given(st.text(max_size=300))
def test_no_text_makes_a_parser_fail(text: str) -> None:
    for part in (parse.parse_diskstats, parse.parse_netdev, parse.parse_pairs, parse.parse_loadavg, parse.parse_cpu):
        part(text)
    for other in (parse.parse_cpuinfo, parse.parse_os_release, parse.parse_filesystems, parse.parse_cgroups):
        other(text)
    parse.mount_rows(text)
    parse.parse_blocks(text)
    parse.parse_links(text)
    clock_ns(parse_answer(text))
    list(parse.numbers({"stat": text, "loadavg": text, "meminfo": text, "diskstats": text, "net/dev": text}))


def test_a_snapshot_of_this_host_has_every_source() -> None:
    read, errors = read_all()
    found = snapshot(read, errors)
    assert found["cpuinfo"]["logical_cpus"] > 0
    assert found["meminfo"]["MemTotal"] > 0
    assert found["vmstat"] and found["loadavg"] and found["cpu"] and found["netdev"]
    assert found["uptime_seconds"] > 0 and found["mounts"] and found["filesystems"]
    assert found["version"] == Path("/proc/version").read_text().strip()
    disks, interfaces = counted(read)
    assert disks.keys() == found["diskstats"].keys()
    assert interfaces.keys() == found["netdev"].keys()
