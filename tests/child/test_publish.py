"""Who is told of a denial: subscribers, audit hooks, logging. Through the whole product, enforcing and auditing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandboxed_python.child.permission import Permission

if TYPE_CHECKING:
    from tests.support import Need, Run

TELL = """
import os, sys
told = []
def hear(message):
    told.append((message.permission, message.resource, message.drop))
stop = sys.permission.subscribe(hear)
def refused(call, *words):
    try:
        call(*words)
    except PermissionError as error:
        return type(error).__name__
    except OSError:
        pass
    return "done"
"""
MODES = pytest.mark.parametrize("mode", ["--permission", "--permission-audit"])


@pytest.fixture(autouse=True)
def _needs(needs: Need) -> None:
    needs()


def check(run: Run, mode: str, code: str, *flags: str, stderr: str = "") -> str:
    """Run code after the prelude, which must end well, and return what it printed."""
    ended = run(mode, *flags, "-c", TELL + code)
    assert ended.code == 0, ended.said
    if not stderr:
        assert ended.stderr == "", ended.said
    assert stderr in ended.stderr, ended.said
    return ended.stdout


@MODES
def test_a_subscriber_hears_each_denial(run: Run, mode: str) -> None:
    code = """
print(refused(open, "/etc/passwd"), refused(os.stat, b"/etc/../etc/passwd"), refused(os.fork) if sys.argv[1:] else "")
print(told)
stop()
stop()
refused(open, "/etc/passwd")
print(len(told))
"""
    answer = "AccessDeniedError" if mode == "--permission" else "done"
    heard = [("FileSystemRead", "/etc/passwd", False), ("FileSystemRead", "/etc/../etc/passwd", False)]
    assert check(run, mode, code) == f"{answer} {answer} \n{heard}\n2\n"
    assert check(run, mode, code, "--allow-fs-read=/etc") == "done done \n[]\n0\n"


@MODES
def test_before_the_error(run: Run, mode: str) -> None:
    code = """
order = []
sys.permission.subscribe(lambda message: order.append("told"))
try:
    open("/etc/passwd")
finally:
    order.append("after")
    print(order, flush=True)
"""
    ended = run(mode, "-c", TELL + code)
    assert ended.stdout == "['told', 'after']\n"
    assert (ended.code == 1) is (mode == "--permission")


@pytest.mark.parametrize(
    ("mode", "heard"),
    [
        ("--permission", [("FileSystemRead", "/x/a", False)]),
        (
            "--permission-audit",
            [("FileSystemRead", "/x/a", False), ("FileSystemWrite", "/x/a", False), ("FileSystemWrite", "/x/b", False)],
        ),
    ],
)
def test_an_operation_of_several_permissions(run: Run, mode: str, heard: object) -> None:
    """One message for each that is asked for; enforced, the first one ends it, as in Node."""
    assert check(run, mode, "refused(os.rename, '/x/a', '/x/b'); print(told)") == f"{heard}\n"


@MODES
def test_messages_are_frozen(run: Run, mode: str) -> None:
    code = """
def change(message):
    try:
        message.permission = "other"
    except AttributeError:
        print("frozen", sorted(vars(message)))
sys.permission.subscribe(change)
refused(open, "/etc/passwd")
"""
    assert check(run, mode, code) == "frozen ['drop', 'permission', 'resource']\n"


@MODES
def test_what_a_subscriber_raises_changes_nothing(run: Run, mode: str) -> None:
    code = """
sys.permission.subscribe(lambda message: 1 / 0)
sys.permission.subscribe(lambda message: print("the next one"))
print(refused(open, "/etc/passwd"))
"""
    ended = run(mode, "-c", TELL + code)
    answer = "AccessDeniedError" if mode == "--permission" else "done"
    assert (ended.code, ended.stdout) == (0, f"the next one\n{answer}\n"), ended.said
    assert ended.stderr.startswith("Traceback (most recent call last):\n"), ended.said
    assert ended.stderr.endswith("\nZeroDivisionError: division by zero\n"), ended.said
    assert "sandboxed_python" not in ended.stderr
    hidden = run(mode, "-c", TELL + "sys.excepthook = None\n" + code)
    assert hidden.stdout == ended.stdout


def test_a_subscriber_may_end_the_program(run: Run) -> None:
    ended = run("--permission", "-c", TELL + "sys.permission.subscribe(lambda m: sys.exit(7)); open('/etc/passwd')")
    assert ended.code == 7, ended.said


@MODES
def test_what_a_subscriber_does_is_not_told(run: Run, mode: str) -> None:
    """It is denied all the same."""
    code = """
def again(message):
    print(refused(open, "/etc/hostname"))
sys.permission.subscribe(again)
refused(open, "/etc/passwd")
refused(open, "/etc/passwd")
print([resource for _, resource, _ in told])
"""
    answer = "AccessDeniedError" if mode == "--permission" else "done"
    assert check(run, mode, code) == f"{answer}\n{answer}\n['/etc/passwd', '/etc/passwd']\n"


@MODES
def test_asking_is_told_if_the_answer_is_no(run: Run, mode: str) -> None:
    code = """
has = sys.permission.has
for words in (("net",), ("child", "x"), ("fs",), ("fs.read",), ("fs.read", "/etc"), ("fs.write", b"/etc"), ("unknown",),
              ("fs.read", "/dev/null"), ("fs.read", "")):
    has(*words)
print(told)
"""
    no = [
        ("Net", ""), ("ChildProcess", "x"), ("FileSystem", ""), ("FileSystemRead", ""), ("FileSystemRead", "/etc"),
        ("FileSystemWrite", "/etc"), ("FileSystemRead", ""),
    ]  # fmt: skip
    assert check(run, mode, code) == f"{[(*each, False) for each in no]}\n"
    code = "print(has('net'), has('fs.read', '/etc'), told)"
    flags = ("--allow-net", "--allow-fs-read=/etc")
    assert check(run, mode, f"has = sys.permission.has\n{code}", *flags) == "True True []\n"


@MODES
def test_drops_are_told(run: Run, mode: str) -> None:
    code = """
for words in (("net",), ("net", "x"), ("fs.read", "/nothing"), ("fs",), ("unknown",)):
    sys.permission.drop(*words)
print(told)
"""
    heard = [("Net", "", True), ("Net", "x", True), ("FileSystemRead", "/nothing", True), ("FileSystem", "", True)]
    assert check(run, mode, code, "--allow-net", "--allow-fs-read=/etc") == f"{heard}\n"


@MODES
def test_the_audit_event(run: Run, mode: str) -> None:
    code = """
stop()
events = []
def hook(event, arguments):
    if event.startswith("sandboxed_python."):
        events.append((event, *arguments))
        raise RuntimeError("from a hook")
sys.addaudithook(hook)
sys.excepthook = lambda *_: None
print(refused(open, "/etc/passwd"), events)
"""
    answer = "AccessDeniedError" if mode == "--permission" else "done"
    event = ("sandboxed_python.permission", "FileSystemRead", "/etc/passwd", False)
    assert check(run, mode, code) == f"{answer} {[event]}\n"
    assert check(run, mode, code, "--allow-fs-read=/etc") == "done []\n"


@MODES
def test_logging(run: Run, mode: str) -> None:
    """Programs that log get a warning; the others get no module, and where nothing is set up nothing is printed."""
    code = """
import logging
refused(open, "/etc/passwd")
class Handler(logging.Handler):
    def emit(self, record):
        print(record.levelname, record.name, record.getMessage(), record.permission, record.resource, record.drop)
logging.getLogger().addHandler(Handler())
refused(open, "/etc/passwd")
"""
    line = "WARNING sandboxed_python.permission FileSystemRead denied: /etc/passwd FileSystemRead /etc/passwd False\n"
    assert check(run, mode, code) == line
    assert check(run, mode, code, "--allow-fs-read=/etc") == ""
    code = "refused(open, '/etc/passwd'); print([n for n in sys.modules if n.startswith(('logging', 'sandboxed', 'json'))])"
    assert check(run, mode, code) == "[]\n"
    assert check(run, mode, code, "--permission-log=/dev/null") == "[]\n"


@MODES
def test_every_thread_is_heard(run: Run, mode: str) -> None:
    code = """
import threading
threads = [threading.Thread(target=refused, args=(open, f"/etc/{n}")) for n in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(told) == sorted(("FileSystemRead", f"/etc/{n}", False) for n in range(20)))
"""
    assert check(run, mode, code, "--allow-worker") == "True\n"


def test_the_package_offers_the_same(run: Run) -> None:
    code = """
from sandboxed_python import AccessDeniedError, permission
permission.subscribe(lambda message: print(message.resource))
try:
    open("/etc/passwd")
except AccessDeniedError as error:
    print(error.permission, sys.permission is permission)
"""
    assert check(run, "--permission", code) == "/etc/passwd\nFileSystemRead True\n"


def test_what_is_no_function() -> None:
    with pytest.raises(
        TypeError, match=r'The "callback" argument must be of type function. Received type int \(1\)'
    ) as got:
        Permission().subscribe(1)  # type: ignore[arg-type]
    assert got.value.code == "ERR_INVALID_ARG_TYPE"  # type: ignore[attr-defined]


def test_without_the_model_nothing_is_told() -> None:
    told: list[object] = []
    permission = Permission()
    stop = permission.subscribe(told.append)
    assert permission.has("net")
    stop()
    assert told == []
