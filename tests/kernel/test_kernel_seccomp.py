"""Loading hand-made filters, and the listener's side of a notification. Each filter in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support import Need

# uname(2) is the guinea pig: no pointer that matters going in, and python raises what it returns.
PRELUDE = """
import errno, json, os, select, signal, sys, time
from sandboxed_python.errors import KernelError
from sandboxed_python.kernel import notify, seccomp, uapi
from sandboxed_python.kernel.calls import prctl, receive_descriptor, send_descriptor, socketpair
from sandboxed_python.kernel.process import set_no_new_privs
UNAME = {"x86_64": 63, "aarch64": 160}[os.uname().machine]
def instruction(code, jt, jf, k):
    return code.to_bytes(2, "little") + bytes([jt, jf]) + k.to_bytes(4, "little")
def on_uname(action):
    return (instruction(0x20, 0, 0, 0) + instruction(0x15, 0, 1, UNAME) + instruction(0x06, 0, 0, action)
            + instruction(0x06, 0, 0, uapi.SECCOMP_RET_ALLOW))
def uname():
    try:
        return os.uname().sysname
    except OSError as error:
        return errno.errorcode.get(error.errno, error.errno)
def status():
    with open("/proc/self/status") as file:
        rows = {name: value.strip() for name, _colon, value in (line.partition(":") for line in file)}
    return int(rows["Seccomp"]), int(rows["Seccomp_filters"])
def out(**values):
    print(json.dumps(values), flush=True)
def confined(body):
    # Fork a child that is confined by the notifying filter and runs body(); return its pid and the listener.
    ours, theirs = socketpair()
    pid = os.fork()
    if not pid:
        os.close(ours)
        set_no_new_privs()
        listener = seccomp.load_notifying_filter(on_uname(uapi.SECCOMP_RET_USER_NOTIF))
        send_descriptor(theirs, listener, b"L")
        os.close(listener)
        os.close(theirs)
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    os.close(theirs)
    text, listener = receive_descriptor(ours, 10)
    assert text == b"L" and listener >= 0
    return pid, listener
"""


def program(text: str, user: int | None = None) -> Any:
    """Run a program in an interpreter of its own, and return what it says by ``out()``."""
    options: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    ended = subprocess.run(
        [sys.executable, "-c", PRELUDE + text], capture_output=True, text=True, timeout=30, check=False, **options
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_a_filter_decides(needs: Need) -> None:
    needs(landlock=0)
    found = program("""
before = uname()
set_no_new_privs()
seccomp.load_filter(on_uname(uapi.SECCOMP_RET_ERRNO | errno.EXDEV))
out(before=before, after=uname(), status=status(), pid=os.getpid() > 0, asked=prctl(uapi.PR_GET_SECCOMP))
""")
    assert found["before"] == "Linux"
    assert found["after"] == "EXDEV"
    assert found["status"][0] == found["asked"] == 2
    assert found["pid"]


def test_filters_add_up_and_the_strictest_wins(needs: Need) -> None:
    needs(landlock=0)
    found = program("""
set_no_new_privs()
_mode, before = status()
seccomp.load_filter(on_uname(uapi.SECCOMP_RET_ERRNO | errno.EXDEV))
seccomp.load_filter(on_uname(uapi.SECCOMP_RET_ALLOW))
out(after=uname(), more=status()[1] - before)
""")
    assert found == {"after": "EXDEV", "more": 2}


def test_an_ordinary_user_needs_no_new_privs(needs: Need) -> None:
    needs(landlock=0, root=False)
    found = program("""
if not prctl(uapi.PR_GET_NO_NEW_PRIVS):
    try:
        seccomp.load_filter(on_uname(uapi.SECCOMP_RET_ALLOW))
        out(text="loaded")
    except KernelError as error:
        out(text=str(error))
else:
    out(text="[Errno 13] seccomp(1, 0, ")
""")
    assert found["text"].startswith("[Errno 13] seccomp(1, 0, ")


def test_a_program_that_cannot_run_is_refused_by_name(needs: Need) -> None:
    needs(landlock=0)
    found = program("""
set_no_new_privs()
texts = []
for wrong in (b"", instruction(0x20, 0, 0, 0), instruction(0x20, 0, 0, 3) + instruction(0x06, 0, 0, 0), b"\\xff" * 8):
    try:
        seccomp.load_filter(wrong)
        texts.append("loaded")
    except KernelError as error:
        texts.append([error.call, errno.errorcode[error.errno], str(error).split("(")[0]])
out(texts=texts, after=uname())
""")
    assert found["texts"] == [["seccomp", "EINVAL", "[Errno 22] seccomp"]] * 4
    assert found["after"] == "Linux"


def test_a_killing_filter_kills(needs: Need) -> None:
    needs(landlock=0)
    found = program("""
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
pid = os.fork()
if not pid:
    set_no_new_privs()
    seccomp.load_filter(on_uname(uapi.SECCOMP_RET_KILL_PROCESS))
    uname()
    os._exit(0)
_pid, status = os.waitpid(pid, 0)
out(signal=os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS)
""")
    assert found == {"signal": True}


def test_answers_reach_the_caller(needs: Need) -> None:
    needs(landlock=0)
    found = program("""
reader, writer = os.pipe()
def body():
    for _turn in range(3):
        os.write(writer, (uname() or "empty").encode() + b" ")
pid, listener = confined(body)
sync = seccomp.set_sync_wake_up(listener)
seen = []
for turn in range(3):
    cookie, task, number, *arguments = notify.receive(listener)
    seen.append([number == UNAME, task == pid, len(arguments), notify.id_valid(listener, cookie)])
    if turn == 0:
        worked = notify.send(listener, cookie, errno.ENOTDIR)
    elif turn == 1:
        worked = notify.send(listener, cookie, 0, 0, uapi.SECCOMP_USER_NOTIF_FLAG_CONTINUE)
    else:
        worked = notify.send_apart(listener, cookie, errno.EXDEV, 0)
    seen[-1] += [worked, notify.id_valid(listener, cookie)]
os.waitpid(pid, 0)
os.close(writer)
poll = select.poll()
poll.register(listener, select.POLLIN)
hangup = poll.poll(10000)[0][1]
out(seen=seen, said=os.read(reader, 100).decode().split(), inheritable=os.get_inheritable(listener), sync=sync,
    hangup=bool(hangup & uapi.POLLHUP), release=[int(part) for part in os.uname().release.split(".")[:2]])
""")
    assert found["seen"] == [[True, True, 6, True, True, False]] * 3
    assert found["said"] == ["ENOTDIR", "Linux", "EXDEV"]
    assert found["inheritable"] is False
    assert found["hangup"] is True
    assert found["sync"] is (found["release"] >= [6, 6])


def test_a_caller_that_is_gone_takes_no_answer(needs: Need) -> None:
    needs(landlock=0)
    found = program("""
pid, listener = confined(uname)
cookie = notify.receive(listener)[0]
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
out(answered=notify.send(listener, cookie, errno.EPERM), apart=notify.send_apart(listener, cookie, 0, 0),
    valid=notify.id_valid(listener, cookie))
""")
    assert found == {"answered": False, "apart": False, "valid": False}


def test_a_signal_ends_the_wait_for_a_notification(needs: Need) -> None:
    needs(landlock=0)
    found = program("""
pid, listener = confined(lambda: time.sleep(20))
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.05)
got = notify.receive(listener)
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
try:
    gone = notify.receive(listener)
except OSError as error:
    gone = None
out(got=got, gone=gone)
""")
    assert found == {"got": None, "gone": None}


def test_what_is_no_listener_is_an_error_with_a_name(needs: Need) -> None:
    needs(landlock=0)
    found = program("""
descriptor = os.open("/dev/null", os.O_RDWR)
try:
    notify.receive(descriptor)
except OSError as error:
    out(text=str(error), sync=seccomp.set_sync_wake_up(descriptor), answered=notify.send(descriptor, 1))
""")
    assert "SECCOMP_IOCTL_NOTIF_RECV" in found["text"]
    assert (found["sync"], found["answered"]) == (False, False)


def test_a_descriptor_is_put_into_the_callers_table(needs: Need) -> None:
    needs(landlock=0)
    found = program("""
reader, writer = os.pipe()
def body():
    # The answer to uname(2) is the number of the new descriptor: not 0, but no error either.
    before = {number for number in range(100) if os.path.lexists(f"/proc/self/fd/{number}")}
    uname()
    new = [number for number in range(100) if os.path.lexists(f"/proc/self/fd/{number}") and number not in before]
    os.write(writer, repr([(os.readlink(f"/proc/self/fd/{n}"), os.get_inheritable(n)) for n in new]).encode())
pid, listener = confined(body)
cookie = notify.receive(listener)[0]
null = os.open("/dev/null", os.O_RDONLY)
number = notify.add_descriptor(listener, cookie, null, close_on_exec=True)
os.waitpid(pid, 0)
os.close(writer)
try:
    notify.add_descriptor(listener, cookie, null, close_on_exec=True)
    again = "done"
except OSError as error:
    again = errno.errorcode[error.errno]
out(number=number > 2, said=os.read(reader, 1000).decode(), again=again)
""")
    assert found == {"number": True, "said": "[('/dev/null', False)]", "again": "ENOENT"}


def test_one_tree_has_one_listener(needs: Need) -> None:
    needs(landlock=0)
    found = program("""
set_no_new_privs()
seccomp.load_notifying_filter(on_uname(uapi.SECCOMP_RET_ALLOW))
try:
    seccomp.load_notifying_filter(on_uname(uapi.SECCOMP_RET_ALLOW))
    out(name="loaded")
except KernelError as error:
    out(name=errno.errorcode[error.errno])
""")
    assert found == {"name": "EBUSY"}
