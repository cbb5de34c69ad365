"""A system's description: drafted once, filled in by hand, and held against every later run."""

import re
from pathlib import Path

import msgspec
import ours
import pytest
import yaml

from stoker.bench.report.submission import (
    describe_system,
    drift,
    hosts_of_run,
    write_cover,
    write_papers,
    write_systems_power,
)
from stoker.bench.report.submission.cover import pdf
from stoker.bench.report.submission.hardware import host_hardware
from stoker.bench.report.submission.power import provisioned_watts, rack_units
from stoker.bench.rules.mlperf.description import description_faults
from stoker.core.errors import CorruptError, NotFoundError


def draft(folder: Path, *hosts: object) -> Path:
    path = folder / "systems" / "sysA.yaml"
    assert describe_system(path, list(hosts) or [ours.host()], api="file")  # type: ignore[arg-type]
    return path


def test_draft_names_what_was_collected_and_leaves_the_rest_blank(tmp_path: Path) -> None:
    path = draft(tmp_path, ours.host("a"), ours.host("b"))
    system = yaml.safe_load(path.read_text())["system_under_test"]
    (client,) = system["clients"]
    assert client["quantity"] == 2
    assert client["chassis"]["cpu_cores"] == 32 and client["chassis"]["memory_capacity"] == 256
    assert client["chassis"]["rack_units"] is None
    assert client["networking"] == [
        {"unit_count": 1, "type": "ethernet", "state": "down"},
        {"unit_count": 1, "type": "ethernet", "state": "up", "speed": 400.0, "traffic": None},
    ]
    assert client["drives"][0]["capacity_in_GB"] == 7680.0 and client["drives"][0]["media_type"] is None
    assert client["environment"] == [{"name": "AWS_REGION", "value": "here"}]
    assert client["sysctl"] == [{"name": "vm.dirty_ratio", "value": "20"}]
    blank = {key for key, told in description_faults({"system_under_test": system}) if told.startswith("nothing")}
    assert "system_under_test.solution.architecture.storage_location" in blank
    assert "system_under_test.solution.architecture.benchmark_API" not in blank


def test_draft_that_was_filled_in_keeps_its_schema_and_every_rule(tmp_path: Path) -> None:
    path = draft(tmp_path)
    assert description_faults(ours.filled(path)) == []


def test_description_is_never_written_again(tmp_path: Path) -> None:
    path = draft(tmp_path)
    path.write_text("mine: 1\n")
    assert not describe_system(path, [ours.host()])
    assert path.read_text() == "mine: 1\n"


def test_same_hosts_do_not_drift_before_and_after_it_was_filled_in(tmp_path: Path) -> None:
    path = draft(tmp_path)
    assert drift(path, [ours.host()]).error(path) is None
    ours.filled(path)
    found = drift(path, [ours.host("another-name")])
    assert (found.diff, found.soft) == ("", ())


CHANGES = {
    "sysctl": ({"sysctl": {"vm/dirty_ratio": "40"}}, "sysctl: vm.dirty_ratio = 40"),
    "environment": ({"environment": {"AWS_REGION": "there"}}, "environment: AWS_REGION = there"),
    "port": ({"ports": [{"name": "eth0", "type": "ethernet", "state": "up", "speed_gbps": 25.0}]}, "speed 25"),
    "drive": ({"drives": [{**ours.FACTS["drives"][0], "model": "N2"}]}, "model_name N2"),
    "drives": ({"drives": ours.FACTS["drives"] * 2}, "drives: 2 x"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_hardware_or_settings_drift_with_a_diff(tmp_path: Path, name: str) -> None:
    changes, added = CHANGES[name]
    path = draft(tmp_path)
    ours.filled(path)
    error = drift(path, [ours.host(**changes)]).error(path)
    assert error is not None and str(error).startswith("E404 ")
    lines = [line for line in str(error).splitlines() if line.startswith("+ ")]
    assert len(lines) >= 1 and any(added in line for line in lines)


def test_more_hosts_drift(tmp_path: Path) -> None:
    path = draft(tmp_path)
    assert "+quantity: 2" in drift(path, [ours.host("a"), ours.host("b")]).diff


SOFT = {
    "product": "PowerBox 10",
    "cpuinfo": {"model": "Example 9001", "sockets": 1, "cores": 31},
    "meminfo": {"MemTotal": 255 << 20},
    "os_release": {"NAME": "Debian GNU/Linux", "VERSION_ID": "13"},
}


def test_seven_fields_are_compared_softly(tmp_path: Path) -> None:
    path = draft(tmp_path)
    found = drift(path, [ours.host(**SOFT)])
    assert found.error(path) is None
    assert len(found.soft) == 7
    assert any("cpu_cores: described 32, collected 31" in line for line in found.soft)


def test_what_the_kernel_did_not_tell_may_be_filled_in(tmp_path: Path) -> None:
    quiet = {
        "ports": [{"name": "eth0", "type": "ethernet", "state": "up", "speed_gbps": None}],
        "drives": [
            {"name": "vda", "vendor": "", "model": "", "interface": "other", "rotational": True, "bytes": 10**12}
        ],
    }
    path = draft(tmp_path, ours.host(**quiet))
    document = yaml.safe_load(path.read_text())
    (client,) = document["system_under_test"]["clients"]
    assert client["drives"][0]["media_type"] is None  # a virtual drive claims to rotate
    client["networking"][0] |= {"speed": 200, "traffic": ["data"]}
    client["drives"][0] |= {"vendor_name": "Acme", "model_name": "V1", "media_type": "TLC"}
    path.write_text(yaml.safe_dump(document))
    assert drift(path, [ours.host(**quiet)]).diff == ""


def test_kinds_of_clients_are_told_apart_in_any_order(tmp_path: Path) -> None:
    big, small = ours.host("a", sysctl={"vm/swappiness": "1"}), ours.host("b")
    path = draft(tmp_path, big, small)
    assert len(yaml.safe_load(path.read_text())["system_under_test"]["clients"]) == 2
    assert drift(path, [small, big]).diff == ""


def test_hosts_of_a_local_product_may_be_moved_to_it(tmp_path: Path) -> None:
    path = draft(tmp_path)
    document = yaml.safe_load(path.read_text())
    system = document["system_under_test"]
    system["product_nodes"], system["clients"] = system["clients"], []
    path.write_text(yaml.safe_dump(document))
    assert drift(path, [ours.host()]).diff == ""


def test_broken_description_is_told(tmp_path: Path) -> None:
    path = tmp_path / "sysA.yaml"
    path.write_text("a: [")
    with pytest.raises(CorruptError, match="not YAML"):
        drift(path, [ours.host()])
    path.write_text("[]\n")
    assert drift(path, [ours.host()]).diff.startswith("--- described/sysA.yaml")


def test_secrets_of_the_environment_are_hidden(tmp_path: Path) -> None:
    found = ours.host(environment={"AWS_ENDPOINT_URL": "https://u:hunter2@h/", "AWS_SECRET_ACCESS_KEY": "hunter2"})
    assert found.environment == (("AWS_ENDPOINT_URL", "https://[redacted]@h/"),)


def test_devices_that_pass_on_what_others_carried_are_left_out() -> None:
    host = ours.series()
    host.disks, host.interfaces = {"nvme0n1": "path of md0"}, {"eth0": "", "eth1": "no device of its own"}
    found = host_hardware(host)
    assert found.drives == () and found.networking == (("ethernet", "up", 400.0),)


def test_hosts_come_from_the_series_of_a_run(tmp_path: Path) -> None:
    ran = ours.run_folder(tmp_path / "ran")
    assert hosts_of_run(ran) == [msgspec.structs.replace(ours.host())]
    with pytest.raises(NotFoundError, match="no facts of hosts"):
        hosts_of_run(tmp_path)


def test_power_and_rack_units_add_up(tmp_path: Path) -> None:
    path = draft(tmp_path)
    system = ours.filled(path)["system_under_test"]
    assert (provisioned_watts(system), rack_units(system)) == (2 * 2 * 1600.0, 4.0)
    system["product_switches"] = [{"unit_count": 3, "rack_units": 1, "model_name": "S|1", "power": None}]
    path.write_text(yaml.safe_dump({"system_under_test": system}))
    lines = write_systems_power(path).read_text().splitlines()
    assert "| controller | 2 | 2 | 1600 | 6,400 | 4 |" in lines
    assert "| S 1 | 3 |  |  |  | 3 |" in lines
    assert lines[-1] == "| **total** | | | | 6,400 | 7 |"


def test_power_of_what_is_no_description_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sysA.yaml"
    path.write_text("- 1\n")
    with pytest.raises(CorruptError, match="not a system's description"):
        write_systems_power(path)


def objects(data: bytes) -> dict[int, bytes]:
    """The objects of a PDF, found as a reader does: from the end by the table of places."""
    start = int(re.search(rb"startxref\n(\d+)\n%%EOF\n$", data)[1])  # type: ignore[index]
    head, *rows = data[start:].split(b"\n")[:1], *data[start:].split(b"\n")[1:]
    assert head == [b"xref"]
    count = int(rows[0].split()[1])
    places = [int(row.split()[0]) for row in rows[2 : count + 1]]
    found = {}
    for number, place in enumerate(places, start=1):
        body = data[place:].partition(b"\nendobj\n")[0]
        assert body.startswith(b"%d 0 obj\n" % number)
        found[number] = body
    return found


def shown(data: bytes) -> str:
    """The text of all pages."""
    streams = re.findall(rb"/Length (\d+) >>\nstream\n(.*?)\nendstream", data, re.DOTALL)
    assert all(int(length) == len(body) for length, body in streams)
    pieces = re.findall(rb"\(((?:[^()\\]|\\.)*)\) Tj", b"\n".join(body for _, body in streams))
    return "\n".join(re.sub(rb"\\(.)", rb"\1", piece).decode("cp1252") for piece in pieces)


def test_cover_is_a_sound_pdf_of_the_description(tmp_path: Path) -> None:
    path = draft(tmp_path)
    ours.filled(path)
    cover = write_cover(path, submitter="acme (north)", division="closed", date="2026-03-02")
    assert cover == path.with_suffix(".pdf")
    data = path.with_suffix(".pdf").read_bytes()
    assert data.startswith(b"%PDF-1.4\n")
    found = objects(data)
    pages = int(re.search(rb"/Count (\d+)", found[2])[1])  # type: ignore[index]
    assert pages == sum(b"/Type /Page " in body for body in found.values()) > 1
    text = shown(data)
    for line in (
        "System: sysA",
        "Submitter: acme (north)",
        "Date: 2026-03-02",
        "Benchmark: MLPerf Storage 3.0",
        "Solution type: remote, file, onprem",
        "Division: closed",
        "model_name: PowerBox 9",
    ):
        assert line in text


def test_cover_of_our_own_is_renewed_and_another_kept(tmp_path: Path) -> None:
    path = draft(tmp_path)
    write_cover(path, submitter="acme", division="closed", date="2026-03-02")
    assert write_cover(path, submitter="acme", division="closed", date="2026-03-03") is not None
    path.with_suffix(".pdf").write_bytes(b"%PDF-1.7 mine")
    assert write_cover(path, submitter="acme", division="closed", date="2026-03-04") is None
    assert path.with_suffix(".pdf").read_bytes() == b"%PDF-1.7 mine"


def test_hostile_text_stays_text_in_a_pdf() -> None:
    data = pdf(") Tj ET endstream endobj \\", ["(" * 200, "\x00\n日本", "x" * 5000])
    assert len(objects(data)) == 9
    assert ") Tj ET endstream endobj \\" in shown(data)
    assert "?" in shown(data)


def test_papers_of_all_systems_are_written_and_unreadable_ones_told(tmp_path: Path) -> None:
    folder = tmp_path / "closed" / "acme"
    ours.filled(draft(folder))
    (folder / "systems/broken.yaml").write_text("a: [")
    (folder / "systems/.hidden.yaml").write_text("a: [")
    (folder / "systems/link.yaml").symlink_to("/etc/passwd")
    paths, told = write_papers(folder, date="2026-03-02")
    assert [path.name for path in paths] == ["sysA.power.md", "sysA.pdf"]
    assert len(told) == 1 and "not YAML" in told[0]
    assert "Submitter: acme" in shown((folder / "systems/sysA.pdf").read_bytes())
    with pytest.raises(NotFoundError, match="no submitter"):
        write_papers(tmp_path / "open/acme", date="2026-03-02")
