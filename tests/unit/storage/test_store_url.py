"""URLs of stores: their parts, their options, and that nothing secret survives in them."""

import os

import pytest

from stoker.core.errors import UsageError
from stoker.storage.url import UrlOption, parse_url

CANARY = "C4nary-9f8e7d"


def test_a_url_falls_into_its_parts() -> None:
    parsed = parse_url("s3://bucket/some/prefix?part_bytes=8MiB&retry_attempts=3")
    assert (parsed.scheme, parsed.host, parsed.path) == ("s3", "bucket", "/some/prefix")
    assert parsed.query == {"part_bytes": "8MiB", "retry_attempts": "3"}
    assert parsed.location == "s3://bucket/some/prefix"
    assert parsed.redacted == "s3://bucket/some/prefix?part_bytes=8MiB&retry_attempts=3"


def test_a_bare_path_is_a_local_folder_taken_literally() -> None:
    parsed = parse_url("data/100%?x=y#z")
    assert (parsed.scheme, parsed.path, parsed.query) == ("file", os.path.join(os.getcwd(), "data/100%?x=y#z"), {})


def test_a_path_in_a_url_is_decoded() -> None:
    assert parse_url("file:///a%20b/c#d").path == "/a b/c#d"


@pytest.mark.parametrize("url", ["", "s3://user:{c}@bucket/x", "s3://{c}@bucket", "mem://a?x=1&x=2", "s3://[bucket"])
def test_a_url_that_makes_no_sense_is_refused_without_telling_secrets(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_url(url.format(c=CANARY))
    assert CANARY not in str(caught.value)


def test_values_of_secret_options_are_redacted() -> None:
    assert CANARY not in parse_url(f"s3://bucket?secret_key={CANARY}").redacted


def test_an_option_is_converted_and_defaulted() -> None:
    options = (UrlOption("size", "bytes", "", default=1), UrlOption("mode", "text", "", default="a"))
    assert parse_url("mem://x?size=4KiB").settings(options) == {"size": 4096, "mode": "a"}


def test_an_unknown_option_is_refused_with_its_neighbour() -> None:
    with pytest.raises(UsageError, match=r"fsnyc.*did you mean 'fsync'"):
        parse_url("file:///x?fsnyc=full").settings((UrlOption("fsync", "text", ""),))


def test_a_bad_value_is_refused_in_the_spelling_of_urls() -> None:
    with pytest.raises(UsageError, match=r"\?mode=: unknown value 'b'"):
        parse_url("mem://x?mode=b").settings((UrlOption("mode", "text", "", choices=("a",)),))
