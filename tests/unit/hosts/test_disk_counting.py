"""No byte is counted twice, whatever stands on what."""

import proc_texts as texts
import pytest

from stoker.bench.run.hosts.disks import BlockFacts, count_disks, count_interfaces
from stoker.bench.run.hosts.parse import parse_blocks, parse_diskstats


def counting(statistics: str, blocks: str | None) -> list[str]:
    facts = None if blocks is None else parse_blocks(blocks)
    return [name for name, why_not in count_disks(parse_diskstats(statistics), facts).items() if not why_not]


@pytest.mark.parametrize(
    ("statistics", "blocks", "expected"),
    [
        (texts.LAPTOP, texts.LAPTOP_BLOCKS, ["nvme0n1"]),
        (texts.ARRAY, texts.ARRAY_BLOCKS, ["sda", "sdb", "sr0"]),
        (texts.MULTIPATH, texts.MULTIPATH_BLOCKS, ["sdb", "sdc", "sdr"]),
        (texts.NVME_OVER_FABRICS, "nvme1n1 - -\nnvme1c1n1 - -\nnvme1c2n1 - -\n", ["nvme1n1"]),
        (texts.NVME_SILENT_HEAD, "nvme1n1 - -\nnvme1c1n1 - -\nnvme1c2n1 - -\n", ["nvme1c1n1", "nvme1c2n1"]),
        (texts.CLOUD, "xvda - -\nxvda1 xvda -\nxvdf - -\n", ["xvda", "xvdf"]),
    ],
    ids=["laptop", "array", "multipath", "fabrics", "silent-head", "cloud"],
)
def test_the_lowest_devices_count_each_once(statistics: str, blocks: str, expected: list[str]) -> None:
    assert counting(statistics, blocks) == expected
    assert counting(statistics, None) == expected  # names alone tell the same for all of these


def test_reasons_name_the_device_that_counts_instead() -> None:
    found = count_disks(parse_diskstats(texts.ARRAY), parse_blocks(texts.ARRAY_BLOCKS))
    assert found["sda1"] == "partition of sda"
    assert found["md127"] == "stands on sda1, sdb1"
    assert found["dm-0"] == "stands on md127"


def test_a_volume_whose_disks_are_not_to_be_seen_counts_itself() -> None:
    statistics = parse_diskstats(texts.MULTIPATH)
    alone = {"dm-3": statistics["dm-3"]}
    assert count_disks(alone, {"dm-3": BlockFacts(stands_on=("sdb", "sdc"))}) == {"dm-3": ""}
    assert count_disks(alone) == {"dm-3": ""}


def test_a_partition_whose_disk_the_kernel_does_not_list_counts() -> None:
    statistics = {"xvda1": parse_diskstats(texts.CLOUD)["xvda1"]}
    assert count_disks(statistics, {"xvda1": BlockFacts(partition_of="xvda")}) == {"xvda1": ""}


def test_the_sum_over_what_counts_is_what_the_bottom_devices_moved() -> None:
    statistics = parse_diskstats(texts.NVME_OVER_FABRICS)
    names = [name for name, why_not in count_disks(statistics).items() if not why_not]
    assert sum(statistics[name][2] for name in names) == 7_200_000
    silent = parse_diskstats(texts.NVME_SILENT_HEAD)
    names = [name for name, why_not in count_disks(silent).items() if not why_not]
    assert sum(silent[name][2] for name in names) == 7_200_000


def test_interfaces_on_top_of_others_do_not_count() -> None:
    found = count_interfaces({"lo": False, "eth0": True, "bond0": False, "eth0.7": False})
    assert found == {
        "lo": "never leaves the host",
        "eth0": "",
        "bond0": "no device of its own",
        "eth0.7": "no device of its own",
    }


def test_in_a_container_all_but_the_loopback_count() -> None:
    assert count_interfaces({"lo": False, "veth0": False}) == {"lo": "never leaves the host", "veth0": ""}
