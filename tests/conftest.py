"""Fixtures of every test. The functions behind them are in ``tests/support.py``."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests import support

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

# Whoever runs the tests in the background or under nohup ignores these, and what they start would inherit that.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

# Examples take as long as they take on a shared machine; CI draws the same ones every time.
settings.register_profile("default", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


@pytest.fixture
def run() -> support.Run:
    """Run the installed ``sandboxed-python`` with any words; see ``support.Run``."""
    return support.runner()


@pytest.fixture
def needs() -> support.Need:
    """Skip unless the kernel can do what the test needs; with ``SANDBOX_MUST_WORK`` fail; see ``support.need``."""
    return support.need


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> str:
    """Return an empty directory by its real name, as a program is told it."""
    return os.path.realpath(tmp_path)


@pytest.fixture
def sandbox(run: support.Run) -> support.Run:
    """Run ``sandboxed-python --permission`` with further words, on a kernel that can enforce everything."""
    support.need()
    command = [*support.installed(), "--permission"]

    def sandboxed(*words: support.Path, **options: object) -> support.Finished:
        return run(*words, command=command, **options)  # type: ignore[arg-type]

    return sandboxed


@pytest.fixture
def as_user() -> support.Run:
    """Run the installed command as user and group 65534 when the tests run as root, else as whoever runs them.

    Root's interpreter may lie where nobody else can go; ``SANDBOXED_PYTHON_USER_COMMAND`` names a command for this.
    """
    if os.geteuid() != 0:
        return support.runner()
    variable = support.USER_COMMAND if os.environ.get(support.USER_COMMAND) else support.COMMAND
    words = support.installed(variable)
    if not support.reachable(support.NOBODY, words[0]):
        support.refuse(f"a command that user {support.NOBODY} can execute ({support.USER_COMMAND})", words[0])
    return support.runner(variable, user=support.NOBODY)


@pytest.fixture
def user_dir(tmp_path: pathlib.Path) -> Iterator[str]:
    """Return an empty directory that the user of ``as_user`` owns and can reach."""
    if os.geteuid() != 0:
        yield str(tmp_path)
        return
    path = os.path.realpath(tempfile.mkdtemp(prefix="sandboxed-python-test-"))
    os.chown(path, support.NOBODY, support.NOBODY)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture(autouse=True)
def _no_options_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caller's options and Python settings out of the tests."""
    monkeypatch.delenv("SANDBOXED_PYTHON_OPTIONS", raising=False)


def pytest_report_header() -> list[str]:
    """Say at the top what the tests run on."""
    from sandboxed_python import __file__ as package
    from sandboxed_python.kernel.probe import probe

    found = probe()
    kernel = f"Linux {found.release} {found.machine}, Landlock ABI {found.landlock}"
    return [f"package: {os.path.dirname(package)}", f"machine: {kernel}; user {os.geteuid()}; {sys.executable}"]


# Folders whose tests ask the kernel, which answers root and other users differently. In the others a mark says so.
ROOMS_OF_THE_KERNEL = frozenset(
    ("broker", "cli", "escape", "faults", "kernel", "launch", "oracle", "programs", "scopes")
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests whose outcome can depend on the user as ``kernel``."""
    for item in items:
        in_room = item.path.parent.name in ROOMS_OF_THE_KERNEL
        if in_room or {"sandbox", "as_user", "run"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kernel)
