"""Files are written whole or not at all, logs survive any cut, secrets are hidden, keys stay under their root."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.errors import CorruptError, UsageError
from stoker.core.events import EventLog, read_events
from stoker.core.files import check_key, redact_arguments, redact_url, write_atomic


def test_an_atomic_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    write_atomic(target, b"one")
    write_atomic(target, b"two")
    assert target.read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_failed_atomic_write_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    write_atomic(target, b"one")
    with pytest.raises(TypeError):
        write_atomic(target, "not bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"one"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_log_cut_at_any_byte_still_gives_its_whole_lines(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for step in range(3):
        log.append("step", step=step)
    log.close()
    log.close()
    data = log.path.read_bytes()
    for size in range(len(data) + 1):
        log.path.write_bytes(data[:size])
        steps = [event["step"] for event in read_events(log.path)]
        whole = data[:size].count(b"\n")
        assert steps[:whole] == list(range(whole)) and len(steps) <= whole + 1


def test_a_torn_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event":"a"}\n{"eve\n{"event":"c"}\n')
    with pytest.raises(CorruptError, match="torn line"):
        list(read_events(path))


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/../b", "a/.", "a\0b", "a/"])
def test_a_key_that_leaves_its_root_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="leaves its root"):
        check_key(key)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("file:///data/x", "file:///data/x"),
        ("s3://user:canary@bucket/p", "s3://[redacted]@bucket/p"),
        ("az://c/p?sig=canary&prefix=a", "az://c/p?sig=[redacted]&prefix=a"),
        ("/plain/path", "/plain/path"),
        ("null://?object_bytes=4096", "null://?object_bytes=4096"),
    ],
)
def test_urls_are_redacted(url: str, safe: str) -> None:
    assert redact_url(url) == safe


@given(st.text(alphabet="abcdefghij0123456789", min_size=12))
def test_no_secret_survives_redaction(secret: str) -> None:
    canary = f"CANARY{secret}"
    words = [
        f"s3://{canary}:{canary}@b/k?token={canary}",
        f"--target=s3://user:{canary}@b/k",
        f"secret_access_key={canary}",
        f"++x.api_key={canary}",
        f"++storage.storage_options={{secret_access_key:{canary}}}",
    ]
    assert canary not in " ".join(redact_arguments(words))
