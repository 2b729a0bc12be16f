"""The log's lines: one write each, whole, short, and no trouble of theirs stops anything."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_python.errors import LaunchError, UsageError
from sandboxed_python.record.events import Report, quote
from sandboxed_python.record.log import LONGEST, Log, now, open_log, refuse_within

if TYPE_CHECKING:
    import pathlib

# Whatever a path may hold: what is no UTF-8 is a lone surrogate.
CHARACTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from("\udc80\udcff")


def opened(path: pathlib.Path, said: list[str]) -> Log:
    return open_log(str(path), "/", said.append)


def test_lines_are_appended(tmp_path: pathlib.Path) -> None:
    said: list[str] = []
    path = tmp_path / "log"
    path.write_text("before\n")
    log = opened(path, said)
    log.write({"a": 1, "b": "x\ny", "c": None})
    log.write({"a": 2})
    log.close()
    first, *rest = path.read_text().splitlines()
    assert (first, [json.loads(line) for line in rest]) == ("before", [{"a": 1, "b": "x\ny", "c": None}, {"a": 2}])
    assert said == []


def test_a_new_log_is_the_users_own(tmp_path: pathlib.Path) -> None:
    opened(tmp_path / "log", []).close()
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    open_log("relative", str(tmp_path), print).close()
    assert (tmp_path / "relative").exists()


@given(st.lists(st.text(CHARACTERS, max_size=5000), max_size=4))
def test_lines_are_short_and_whole(texts: list[str]) -> None:
    source, sink = os.pipe()
    log = Log(sink, print)
    log.write({str(at): text for at, text in enumerate(texts)})
    log.close()
    with open(source, "rb") as file:
        line = file.read()
    assert len(line) <= LONGEST
    assert line.count(b"\n") == 1
    for at, text in json.loads(line).items():
        whole = texts[int(at)]
        assert text == whole or (text.endswith("...") and whole.startswith(text[:-3]))


@given(st.text(CHARACTERS))
def test_reports_are_json(text: str) -> None:
    assert json.loads(quote(text)) == json.loads(json.dumps(text))
    quote(text).encode("ascii")


def test_a_full_disk_is_said_once() -> None:
    said: list[str] = []
    log = open_log("/dev/full", "/", said.append)
    for _ in range(3):
        log.write({"a": 1})
    assert said == ["--permission-log: No space left on device: a denial could not be written down; it stays a denial"]
    log.close()
    assert said[1:] == ["--permission-log: 3 denials could not be written down"]


def test_nobody_who_reads_is_said_once() -> None:
    said: list[str] = []
    source, sink = os.pipe()
    log = Log(sink, said.append)
    for _ in range(200):
        log.write({"a": "x" * 700})
    assert 0 < log.lost < 200
    assert len(said) == 1
    written = 200 - log.lost
    os.set_blocking(source, False)
    found = os.read(source, 1 << 20)
    assert [json.loads(line)["a"] for line in found.splitlines()] == ["x" * 700] * written
    log.write({"a": "again"})
    assert json.loads(os.read(source, 4096)) == {"a": "again"}
    os.close(source)
    log.write({"a": "nobody"})
    assert len(said) == 1
    log.close()


def test_what_is_no_place_for_a_log(tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "pipe")
    for name, why in (("link", "it is a link"), ("pipe", "a pipe that nobody reads"), (".", "Is a directory")):
        with pytest.raises(LaunchError, match=f"--permission-log=.*: {why}"):
            opened(tmp_path / name, [])
    with pytest.raises(LaunchError, match="No such file or directory"):
        opened(tmp_path / "a" / "b", [])
    assert not (tmp_path / "elsewhere").exists()
    for value in ("fd:", "fd:x", "fd:-1", "fd:99999", "fd:9999999999", "fd:²"):
        with pytest.raises(UsageError, match=f"--permission-log={re.escape(value)}: "):
            open_log(value, "/", print)
    reading = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(UsageError, match="it isn't open for writing"):
        open_log(f"fd:{reading}", "/", print)
    os.close(reading)


def test_what_the_program_could_change(tmp_path: pathlib.Path) -> None:
    log = opened(tmp_path / "log", [])
    refuse_within(log, lambda _path: False)
    place = os.path.realpath(tmp_path / "log")
    with pytest.raises(UsageError, match="could erase it"):
        refuse_within(log, lambda path: path == place)
    os.link(tmp_path / "log", tmp_path / "other")
    with pytest.raises(UsageError, match="other names"):
        refuse_within(log, lambda _path: False)
    log.close()


def test_the_time() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", now())


@pytest.mark.parametrize(
    "data",
    [
        None, [], "x", {}, {"permission": "Nothing"}, {"permission": ["FFI"]}, {"permission": "FFI", "more": 1},
        {"permission": "FFI", "line": True}, {"permission": "FFI", "line": "1"}, {"permission": "FFI", "path": 1},
        {"permission": "FFI", "resource": None}, {"permission": {}}, {"permission": "FFI", "line": -1}, {"permission": "FFI", "line": 10**4000},
    ],
)  # fmt: skip
def test_what_is_no_report(data: object) -> None:
    with pytest.raises(ValueError, match=r"^$"):
        Report.from_data(data)
    good = {"permission": "FFI", "resource": "r", "path": None, "event": "e", "file": "f", "line": 1}
    assert Report.from_data(good).as_dict() == good
