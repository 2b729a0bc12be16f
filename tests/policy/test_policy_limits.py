"""Limits: what sizes and durations mean, what files say of them, and which of several holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_python.cli.args import complete, parse
from sandboxed_python.errors import MissingOptionError, PolicyFileError, UsageError
from sandboxed_python.policy import files, units
from sandboxed_python.policy.limits import LIMITS, Limits, strictest

MIB = 1 << 20


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("size", "1", 1),
        ("size", "512M", 512 * MIB),
        ("size", "512Mi", 512 * MIB),
        ("size", "1.5k", 1536),
        ("size", ".5G", 512 * MIB),
        ("size", "2ti", 2 << 40),
        ("duration", "90", 90.0),
        ("duration", "250ms", 0.25),
        ("duration", "1.5s", 1.5),
        ("duration", "1h30m", 5400.0),
        ("duration", "2D", 172800.0),
        ("grace", "0", 0.0),
        ("grace", "0s", 0.0),
        ("count", "32", 32),
    ],
)
def test_what_a_value_means(kind: str, text: str, value: float) -> None:
    found = units.parse(kind, text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("kind", ["size", "duration", "grace", "count"])
@pytest.mark.parametrize(
    "text",
    ["-1", "+1", "1e3", "nan", "inf", "M", "1.2.3", " 1", "1 M", "5x", "5mm", "1m1h", "1m30", "1m1m", "\u0661", "1_0",
     "9" * 40],
)  # fmt: skip
def test_what_is_no_value(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a") as caught:
        units.parse(kind, text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(("kind", "text"), [("size", "0"), ("size", "0.1"), ("duration", "0s"), ("count", "0")])
def test_nothing_at_all_is_no_limit(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match="above 0"):
        units.parse(kind, text)


@pytest.mark.parametrize(("kind", "text"), [("count", "1.0"), ("count", "1k"), ("size", "1Kb"), ("size", "1m2k")])
def test_units_of_another_kind_are_refused(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        units.parse(kind, text)


@given(st.sampled_from(["size", "count"]), st.integers(1, 1 << 30))
def test_words_are_read_back(kind: str, value: int) -> None:
    back = units.parse(kind, units.words(kind, value))
    assert abs(back - value) <= 0.05 * value


@given(st.floats(0.001, 1e8))
def test_words_of_durations_are_read_back(value: float) -> None:
    assert abs(units.parse("duration", units.words("duration", value)) - value) <= 0.06 * max(value, 0.001)


def policy_of(text: str, name: str = "p.toml") -> Limits:
    return files.loads(text, "/x", shown=name, environ={"HOME": "/h"}).limits


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.toml", '[limits]\nmemory = "512M"\ntime = 600\ncpu = 1.5\nprocesses = 4\ngrace = "1s"\n'),
        (
            "pyproject.toml",
            '[tool.sandboxed-python.limits]\nmemory = "512M"\ntime = "10m"\ncpu = "1.5s"\nprocesses = "4"\ngrace = 1\n',
        ),
        ("p.json", '{"limits": {"memory": 536870912, "time": 600, "cpu": 1.5, "processes": 4, "grace": 1}}'),
    ],
)
def test_a_file_says_limits(name: str, text: str) -> None:
    assert policy_of(text, name) == Limits(memory=512 * MIB, time=600, cpu=1.5, processes=4, grace=1)


def test_every_limit_has_a_key() -> None:
    values = {"size": '"1K"', "duration": '"1s"', "grace": '"1s"', "count": "1"}
    for field, flag, kind, *_ in LIMITS:
        key = flag.lstrip("-").removeprefix("limit-")
        assert getattr(policy_of(f"[limits]\n{key} = {values[kind]}\n"), field) == units.parse(
            kind, values[kind].strip('"')
        )


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[limits]\nmemry = 1\n", 2, "unknown key 'memry' in [limits]: did you mean memory?"),
        ("[limits]\n\ntime = true\n", 3, "time: true or false is not a duration above 0"),
        ('[limits]\nmemory = "lots"\n', 2, "memory: 'lots' is not a size above 0"),
        ("[limits]\nmemory = 1.5\n", 2, "memory: a number is not a size above 0"),
        ("[limits]\ncpu = inf\n", 2, "cpu: 'inf' is not a duration above 0"),
        ("[limits]\nprocesses = -1\n", 2, "processes: '-1' is not a whole number above 0"),
        ("[limits]\noutput = [1]\n", 2, "output: a list is not a size above 0"),
        ("limits = 5\n", 1, "limits has to be a table, not a number"),
    ],
)
def test_errors_name_file_and_line(text: str, line: int, words: str) -> None:
    with pytest.raises(PolicyFileError) as caught:
        policy_of(text)
    assert str(caught.value).startswith(f"p.toml:{line}: ")
    assert words in str(caught.value)


def test_the_strictest_of_several_holds() -> None:
    several = [Limits(memory=5, time=9.0), Limits(memory=7, cpu=1.0, grace=30.0), Limits()]
    assert strictest(several) == Limits(memory=5, time=9.0, cpu=1.0, grace=30.0)
    assert strictest([]) == Limits()


def test_a_file_wins_over_what_it_extends(tmp_path: object) -> None:
    with open(f"{tmp_path}/base.toml", "w", encoding="utf-8") as file:
        file.write('[limits]\nmemory = "1G"\ntime = "1m"\ncpu = "10s"\n')
    text = 'extends = "./base.toml"\n[limits]\nmemory = "2G"\ntime = false\n'
    limits = files.loads(text, str(tmp_path), shown="p.toml").limits
    assert limits == Limits(memory=2 << 30, cpu=10.0)


def limits_of(cwd: object, *words: str, environment: dict[str, str] | None = None) -> Limits:
    return complete(parse([*words, "x.py"], environment or {}, str(cwd)), str(cwd)).limits


def test_options_win_over_files_and_of_files_the_strictest_holds(tmp_path: object) -> None:
    for name, text in (("a", "memory = 5000\ntime = 60\ncpu = 5"), ("b", "memory = 4000\ntime = 50\nprocesses = 9")):
        with open(f"{tmp_path}/{name}.toml", "w", encoding="utf-8") as file:
            file.write(f"[limits]\n{text}\n")
    both = ["--policy=./a.toml", "--policy=./b.toml"]
    assert limits_of(tmp_path, *both) == Limits(memory=4000, time=50.0, cpu=5.0, processes=9)
    said = limits_of(tmp_path, *both, "--limit-memory=1M", "--no-limit-time")
    assert said == Limits(memory=MIB, cpu=5.0, processes=9)
    outside = {"SANDBOXED_PYTHON_OPTIONS": "--limit-memory=2M --limit-cpu=3s"}
    assert limits_of(tmp_path, *both, "--limit-memory=1M", environment=outside) == said.replace(cpu=3.0, time=50.0)


@pytest.mark.parametrize("row", LIMITS, ids=[row[1] for row in LIMITS])
def test_a_bad_value_names_the_flag(row: tuple[str, str, str, str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse(["--permission", f"{row[1]}=bad", "x.py"], {}, "/")
    assert str(caught.value).startswith(f"{row[1]}: 'bad' is not ")
    with pytest.raises(UsageError) as caught:
        parse(["x.py"], {"SANDBOXED_PYTHON_OPTIONS": f"{row[1]}=bad"}, "/")
    assert str(caught.value).startswith(f"{row[1]} (SANDBOXED_PYTHON_OPTIONS): ")


@pytest.mark.parametrize("word", ["--limit-time=1s", "--limit-memory=1G", "--grace=1s", "--result=r", "--progress"])
def test_a_limit_without_the_model_is_an_error(word: str) -> None:
    """A limit that nobody holds would be worse than none."""
    with pytest.raises(MissingOptionError):
        limits_of("/", word)
