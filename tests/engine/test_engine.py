"""The image in a real container engine: what it is asked to enforce it enforces, as process 1 of a container.

``scripts/container-test`` builds the image, and says by these variables where it is; without them nothing is run:

- ``SANDBOXED_PYTHON_IMAGE``: the image's name
- ``SANDBOXED_PYTHON_EXAMPLE``: that of ``examples/docker/``
- ``SANDBOXED_PYTHON_ENGINE``: the words that start the engine, ``podman --root ...`` or ``docker``
- ``SANDBOXED_PYTHON_ENGINE_RUN``: further options of its ``run``

Denials are looked at from outside, in the mounted folder. The programs that are denied have torn the audit hook out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml

from tests import support
from tests.escape import attack
from tests.house.tables import ROOT
from tests.launch.plain import eventually
from tests.scopes.twin import check_ran, check_refused

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

IMAGE = os.environ.get("SANDBOXED_PYTHON_IMAGE", "")
EXAMPLE = os.environ.get("SANDBOXED_PYTHON_EXAMPLE", "")
ENGINE = shlex.split(os.environ.get("SANDBOXED_PYTHON_ENGINE", ""))
RUN = shlex.split(os.environ.get("SANDBOXED_PYTHON_ENGINE_RUN", ""))
if not (IMAGE and ENGINE):
    pytest.skip("needs an image in a container engine; found none: scripts/container-test makes one", True)  # noqa: FBT003

USERS = {"root": 0, "user": 1000, "nobody": support.NOBODY}
HARDENED = ("--cap-drop=ALL", "--security-opt=no-new-privileges")
HARDENING = {"": (), " hardened": HARDENED}
# Who the program is, and what the engine takes from it besides.
CONTAINERS = {
    name + how: (f"--user={user}:{user}", *options)
    for name, user in USERS.items()
    for how, options in HARDENING.items()
}


class Container(NamedTuple):
    """Containers of one kind: read-only, with three folders mounted.

    Attributes:
        home: holds ``in`` (read-only inside), ``out`` and ``other``, which are mounted under these names in ``/``.
        user: user id inside; the folders are its own.
        options: of the engine's ``run``.
    """

    home: str
    user: int
    options: tuple[str, ...]

    def words(self, *how: str) -> list[str]:
        """Return the words that start one, up to the image's name."""
        mounts = (f"--volume={self.home}/{name}:/{name}{':ro' * (name == 'in')}" for name in ("in", "out", "other"))
        return [*ENGINE, "run", *how, "--read-only", *RUN, *self.options, *mounts, IMAGE]

    def run(self, *words: str) -> support.Finished:
        """Run the image with these words; return how it ended."""
        return support.execute([*self.words("--rm"), *words])

    def there(self, name: str) -> bool:
        """Tell from outside whether there is something by this name."""
        return os.path.lexists(os.path.join(self.home, name))


@pytest.fixture(params=CONTAINERS)
def container(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Container:
    """Return containers, one kind after the other."""
    options = CONTAINERS[request.param]
    user = USERS[request.param.split()[0]]
    for name in ("in", "out", "other"):
        (tmp_path / name).mkdir(mode=0o755)
        os.chown(tmp_path / name, user, user)
    (tmp_path / "in" / "data").write_text("data")
    for example in ("csv_totals.py", "data/orders.csv"):
        with open(os.path.join(ROOT, "examples", example), encoding="utf-8") as file:
            (tmp_path / "in" / os.path.basename(example)).write_text(file.read())
    return Container(str(tmp_path), user, options)


def test_check_says_that_everything_can_be_enforced(container: Container) -> None:
    ended = container.run("--check")
    check_ran(ended)
    assert "everything can be enforced here" in ended.stdout


def test_it_is_such_a_container(container: Container) -> None:
    """Root has the engine's capabilities unless it is hardened; the profile of system calls is the engine's; read-only."""
    code = (
        "import os\nwith open('/proc/self/status') as file: status = dict(line.split(':', 1) for line in file)\n"
        "print(*(status[name].strip() for name in ('Seccomp', 'NoNewPrivs')), int(status['CapEff'], 16) > 0)\n"
        "try: open('/new', 'w')\nexcept OSError as error: print(error.errno)"
    )
    ended = container.run("-c", code)
    hardened = set(HARDENED) <= set(container.options)
    assert ended.stdout.splitlines() == [
        f"2 {int(hardened)} {container.user == 0 and not hardened}",
        str(errno.EROFS),
    ], ended.said


def test_a_job_on_mounted_folders(container: Container) -> None:
    """The example of the README, and its result from outside."""
    words = ("--permission", "--allow-fs-read=/in/", "--allow-fs-write=/out/", "/in/csv_totals.py", "/in/orders.csv")
    ended = container.run(*words, "/out/totals.json")
    check_ran(ended)
    status = os.stat(os.path.join(container.home, "out", "totals.json"))
    assert (status.st_size > 0, status.st_uid) == (True, container.user)


# What is denied, and granted with the flag: the code, what the flag is, and the file that it makes.
WRITES = "open('{}', 'w').close()"
CASES = {
    "write": (WRITES.format("/other/new"), "--allow-fs-write=/other/", "other/new"),
    "write by a prefix": (WRITES.format("/other/new-1"), "--allow-fs-write=/other/new-*", "other/new-1"),
    "write beside a prefix": (WRITES.format("/other/other"), "--allow-fs-write=/other/*", "other/other"),
    "read": ("print(open('/in/data').read())", "--allow-fs-read=/in/", ""),
    "stat": ("print(os.stat('/in/data').st_size)", "--allow-fs-read=/in/", ""),
    "stat anything": ("print(os.stat('/in/data').st_size)", "--allow-fs-metadata", ""),
    "chmod": ("os.chmod('/other', 0o700); os.mkdir('/out/new')", "--allow-fs-write=/other/", "out/new"),
    "a child": (
        "import subprocess; subprocess.run(['touch', '/out/new'], check=True)",
        "--allow-child-process",
        "out/new",
    ),
}
GIVEN = ("--allow-fs-write=/out/", "--allow-fs-write=/other/new-x*", "--no-warnings")


def attempt(code: str, *, torn: bool) -> str:
    """Return a program that ends with 0 when it did, and with 7 when it was refused with EACCES or EPERM."""
    torn_out = attack.TEAR_OUT if torn else ""
    return f"import os, sys\n{torn_out}\ntry:\n    {code}\nexcept PermissionError:\n    sys.exit(7)\nprint('did')"


@pytest.mark.parametrize("name", CASES)
def test_denied_and_granted(container: Container, name: str) -> None:
    code, flag, mark = CASES[name]
    denied = container.run("--permission", *GIVEN, "-c", attempt(code, torn=True))
    assert denied.code == 7, denied.said
    assert not (mark and container.there(mark)), denied.said
    granted = container.run("--permission", *GIVEN, flag, "-c", attempt(code, torn=False))
    check_ran(granted)
    assert granted.stdout.endswith("did\n"), granted.said
    assert not mark or container.there(mark), granted.said


def test_a_mount_that_is_read_only_stays_so(container: Container) -> None:
    """A grant gives nothing that the container hasn't."""
    ended = container.run("--permission", "--allow-fs-write=/in/", "-c", "import os\nos.mkdir('/in/new')")
    assert ended.code == 1, ended.said
    assert f"[Errno {errno.EROFS}]" in ended.stderr, ended.said
    assert not container.there("in/new")


def test_the_hook_words_the_denial(container: Container) -> None:
    check_refused(container.run("--permission", "-c", "open('/in/data')"), "FileSystemRead", "/in/data")


ENDS = {"pass": 0, "sys.exit(42)": 42, "raise ValueError": 1}
# Plain python as process 1 gets no signal from itself.
KILLED = {"os.kill(os.getpid(), 9)": 128 + signal.SIGKILL, "os.kill(os.getpid(), 15)": 128 + signal.SIGTERM}


@pytest.mark.parametrize(
    ("code", "expected", "model"),
    [*((*end, ()) for end in ENDS.items()), *((*end, ("--permission",)) for end in (ENDS | KILLED).items())],
)
def test_exit_codes(container: Container, code: str, expected: int, model: tuple[str, ...]) -> None:
    ended = container.run(*model, "-c", f"import os, sys; {code}")
    assert ended.code == expected, ended.said


@pytest.mark.parametrize(("words", "expected"), [(("--allow-fs-raed=/",), 9), (("/in/none.py",), 2), ((), 0)])
def test_exit_codes_of_the_command(container: Container, words: tuple[str, ...], expected: int) -> None:
    ended = container.run(*(("--permission", *words) if words else ()))
    assert ended.code == expected, ended.said


# Ending it


class Running(NamedTuple):
    """A container that runs.

    Attributes:
        id: the engine's name for it.
        container: which kind.
    """

    id: str
    container: Container

    def engine(self, *words: str) -> str:
        """Ask the engine."""
        ended = support.execute([*ENGINE, *words])
        check_ran(ended)
        return ended.stdout.strip()

    def process(self) -> int:
        """Return the id of its process 1, as seen from outside."""
        return int(self.engine("inspect", "--format", "{{.State.Pid}}", self.id))

    def code(self) -> int:
        """Wait for its end; return the exit code."""
        return int(self.engine("wait", self.id))


@contextlib.contextmanager
def running(container: Container, *words: str) -> Iterator[Running]:
    """Start the image with these words, and wait until the program has made ``/out/ready``."""
    started = support.execute([*container.words("--detach"), *words])
    check_ran(started)
    one = Running(started.stdout.strip(), container)
    try:
        try:
            eventually(lambda: container.there("out/ready"), "the program is ready")
        except BaseException:
            print(support.execute([*ENGINE, "logs", one.id]).said)
            raise
        yield one
    finally:
        support.execute([*ENGINE, "rm", "--force", one.id])


READY = "open('/out/ready', 'w').close()\n"
HANDLES = f"""
import signal, sys, time
def end(*_):
    open('/out/handled', 'w').close()
    sys.exit(3)
signal.signal(signal.SIGTERM, end)
{READY}time.sleep(100)
"""
IGNORES = f"import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{READY}time.sleep(100)"
JOB = ("--permission", "--no-warnings", "--allow-fs-write=/out/")
WAYS = {"fork": (), "exec": ("-B",)}


@pytest.mark.parametrize("way", WAYS)
def test_stop_reaches_the_programs_handler(container: Container, way: str) -> None:
    with running(container, *JOB, *WAYS[way], "-c", HANDLES) as job:
        began = time.monotonic()
        job.engine("stop", "-t", "30", job.id)
        assert time.monotonic() - began < 20
        assert job.code() == 3
        assert container.there("out/handled")


def test_stop_ends_a_program_without_a_handler(container: Container) -> None:
    """Plain python as process 1 would wait for its SIGKILL: the kernel gives process 1 only what it handles."""
    with running(container, *JOB, "-c", f"import time\n{READY}time.sleep(100)") as job:
        began = time.monotonic()
        job.engine("stop", "-t", "30", job.id)
        assert time.monotonic() - began < 20
        assert job.code() == 128 + signal.SIGTERM


def test_stop_kills_what_ignores_it(container: Container) -> None:
    with running(container, *JOB, "-c", IGNORES) as job:
        job.engine("stop", "-t", "1", job.id)
        assert job.code() == 128 + signal.SIGKILL


def zombies(parent: int) -> int:
    """Count the children of a process that have ended and that it has not waited for."""
    found = 0
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
            state, owner = file.read().rpartition(")")[2].split()[:2]
            found += (state, owner) == ("Z", str(parent))
    return found


ORPHANS = 20
MAKES_ORPHANS = f"""
import os, time
for _ in range({ORPHANS}):
    if not os.fork():
        if not os.fork():
            time.sleep(0.2)
        os._exit(0)
    os.wait()
time.sleep(1)
{READY}time.sleep(100)
"""


def test_process_1_reaps_orphans(container: Container) -> None:
    with running(container, *JOB, "--allow-child-process", "-c", MAKES_ORPHANS) as job:
        assert zombies(job.process()) == 0
        job.engine("kill", "--signal", "KILL", job.id)
        assert job.code() == 128 + signal.SIGKILL


def test_plain_python_as_process_1_would_not(container: Container) -> None:
    """What ``zombies`` counts, where they are."""
    with running(container, "-c", MAKES_ORPHANS) as job:
        assert zombies(job.process()) == ORPHANS


# The example


def as_composed() -> list[str]:
    """Return the options of ``run`` that the service in ``compose.yaml`` stands for, but its volumes and its network.

    What the engine of a machine can't limit, and which network it has, is for ``SANDBOXED_PYTHON_ENGINE_RUN`` to say.
    """
    with open(os.path.join(ROOT, "examples", "compose.yaml"), encoding="utf-8") as file:
        service = yaml.safe_load(file)["services"]["orders"]
    return [
        f"--user={service['user']}",
        *["--read-only"] * service["read_only"],
        *(f"--cap-drop={name}" for name in service["cap_drop"]),
        *(f"--security-opt={option.removesuffix(':true')}" for option in service["security_opt"]),
        f"--pids-limit={service['pids_limit']}",
        f"--memory={service['mem_limit']}",
    ]


def test_the_example_as_compose_runs_it(tmp_path: pathlib.Path) -> None:
    """Its job, its policy: another program in the same container may read its input and nothing else."""
    if not EXAMPLE:
        pytest.skip("needs the image of examples/docker/; found none: scripts/container-test makes one")
    (tmp_path / "out").mkdir()
    os.chown(tmp_path / "out", support.NOBODY, support.NOBODY)
    mounts = [f"--volume={ROOT}/examples/data:/in:ro", f"--volume={tmp_path}/out:/out"]
    words = [*ENGINE, "run", "--rm", *RUN, *as_composed(), *mounts, EXAMPLE]
    check_ran(support.execute(words))
    assert (tmp_path / "out" / "totals.json").stat().st_size > 0
    for code, ends in (("/in/orders.csv", 0), ("/app/policy.toml", 7)):
        ended = support.execute([*words, "-c", attempt(f"open('{code}')", torn=True)])
        assert ended.code == ends, ended.said
