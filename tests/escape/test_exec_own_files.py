"""Machine code of the program's own under ``--allow-child-process`` alone.

The attack: write a program and execute it: from a granted folder, after renames and links, unnamed, removed, from memory
files (also the one that the interpreter is started with), as a script's interpreter; have the loader load it (``ld.so
FILE``, LD_PRELOAD, LD_AUDIT, LD_LIBRARY_PATH).
What stops it: no write grant gives EXECUTE (Landlock), memory files only sealed against execution, executable mappings
only of the system's own libraries (the supervisor decides). Source: landlock(7), memfd_create(2), ld.so(8); THREATS 9
(child_exec_*).
"""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING

import pytest

from tests.escape import attack
from tests.escape.attack import source
from tests.support import tool

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

# MARKER is the file that the code creates, in a granted folder: whether it runs is the question, not what it may do.
HEAD = (
    "import shutil, subprocess\nMARKER = WRITE + '/marker'\nos.environ['MARKER'] = MARKER\nOWN = WRITE + '/own'\n"
    "def execute(*words, **options):\n"
    "    print(subprocess.run(words, capture_output=True, **options))\n"
    "def put(path=OWN):\n    shutil.copyfile(READ + '/program', path); os.chmod(path, 0o755)\n"
)
BODIES = {
    "its own file": "put(); execute(OWN)",
    "in a folder for writing only": "put(DROP + '/own'); execute(DROP + '/own')",
    "posix_spawn": "put(); os.waitpid(os.posix_spawn(OWN, ['own'], os.environ), 0)",
    "a shell": "put(); execute('sh', '-c', OWN)",
    "a shell's exec of a copy": "execute('sh', '-c', f'cp {READ}/program {OWN}; chmod 755 {OWN}; {OWN}; . {OWN}')",
    "by a link": "put(); os.symlink(OWN, WRITE + '/link'); execute(WRITE + '/link')",
    "by a hard link": "put(); os.link(OWN, WRITE + '/link'); execute(WRITE + '/link')",
    "renamed": "put(); os.mkdir(WRITE + '/in'); os.rename(OWN, WRITE + '/in/own'); execute(WRITE + '/in/own')",
    "by /proc/self/fd": "put(); fd = os.open(OWN, os.O_RDONLY); execute(f'/proc/self/fd/{fd}', pass_fds=(fd,))",
    "by its descriptor": "put(); fd = os.open(OWN, os.O_RDONLY)\nif os.fork() == 0: os.execve(fd, ['x'], os.environ)\nos.wait()",
    "removed, by its descriptor": "put(); fd = os.open(OWN, os.O_RDONLY); os.unlink(OWN)\n"
    "if os.fork() == 0: os.execve(fd, ['x'], os.environ)\nos.wait()",
    "unnamed": "fd = os.open(WRITE, os.O_TMPFILE | os.O_RDWR, 0o755)\n"
    "os.write(fd, open(READ + '/program', 'rb').read()); again = os.open(f'/proc/self/fd/{fd}', 0); os.close(fd)\n"
    "if os.fork() == 0: os.execve(again, ['x'], os.environ)\nos.wait()",
    "memory file": "fd = os.memfd_create('x', 0); os.write(fd, open(READ + '/program', 'rb').read())\n"
    "again = os.open(f'/proc/self/fd/{fd}', 0); os.close(fd)\n"
    "if os.fork() == 0: os.execve(again, ['x'], os.environ)\nos.wait()",
    "interpreter of a script": "put(); open(WRITE + '/script', 'w').write(f'#!{OWN}\\n'); os.chmod(WRITE + '/script', 0o755)\n"
    "execute(WRITE + '/script')",
    "interpreter of a script that may be executed": "put(); execute(READ + '/script')",
    "PATH": "put(WRITE + '/ls'); os.environ['PATH'] = WRITE; os.execvp('ls', ['ls'])",
    "ld.so FILE": "shutil.copyfile(READ + '/dynamic', OWN); execute(LOADER, OWN)",
    "LD_PRELOAD": "shutil.copyfile(READ + '/library.so', OWN); execute('true', env={**os.environ, 'LD_PRELOAD': OWN})",
    "LD_AUDIT": "shutil.copyfile(READ + '/library.so', OWN); execute('true', env={**os.environ, 'LD_AUDIT': OWN})",
    "ld.so --preload": "shutil.copyfile(READ + '/library.so', OWN); execute(LOADER, '--preload', OWN, shutil.which('true'))",
    "/dev/shm": "put('/dev/shm/' + os.path.basename(HOME)); execute('/dev/shm/' + os.path.basename(HOME))",
}


def loader() -> str:
    found = [path for pattern in ("/lib64/ld-linux*.so.2", "/lib/ld-linux*.so.1") for path in glob.glob(pattern)]
    if not found:
        pytest.skip("needs glibc's loader; found none in /lib64 and /lib")
    return found[0]


def stage(attacker: Attacker) -> None:
    attacker.put("read/program", attack.program(), 0o755)
    attacker.put("read/dynamic", attack.dynamic_program(), 0o755)
    attacker.put("read/library.so", attack.library())
    attacker.put("read/script", f"#!{attacker.path('write/own')}\n", 0o755)


def marked(attacker: Attacker) -> bool:
    return attacker.exists("write/marker")


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_its_own_program(attacker: Attacker, body: str) -> None:
    flags = ["--allow-child-process"]
    shared = "/dev/shm/" + os.path.basename(attacker.home)
    if "/dev/shm" in body:
        flags.append("--allow-fs-write=/dev/shm/")
    try:
        attacker.must_fail(
            f"LOADER = {loader()!r}\n{HEAD}{body}",
            *flags,
            harm=lambda _: marked(attacker),
            prepare=lambda: stage(attacker),
            # PATH: the program replaces itself, so nothing says how it ended.
            code=None if "execvp" in body else 0,
        )
    finally:
        if os.path.exists(shared):
            os.unlink(shared)


def test_a_program_that_may_be_executed_can_t_be_replaced(attacker: Attacker) -> None:
    """The twin: what is granted for reading only may be executed; and stays what it is."""
    stage(attacker)
    confined = attacker.confined(f"{HEAD}execute(READ + '/program')", "--allow-child-process")
    assert marked(attacker), confined.said
    attacker.lay_out()
    stage(attacker)
    confined = attacker.confined(
        f"{HEAD}open(OWN, 'w').write('#!/bin/sh\\ntouch $MARKER\\n'); os.chmod(OWN, 0o755)\n"
        "try: os.rename(OWN, READ + '/program')\nexcept OSError as error: print(error)\n"
        "try: open(READ + '/program', 'r+b').write(b'#!/bin/sh')\nexcept OSError as error: print(error)\n",
        "--allow-child-process",
    )
    with open(attacker.path("read/program"), "rb") as file:
        assert file.read() == attack.program(), confined.said


@pytest.mark.parametrize("prefix", ["write/o*", "write/own*", "wri*", "write/own"])
def test_a_prefix_in_a_tree_that_may_be_executed(attacker: Attacker, prefix: str) -> None:
    """A tree is granted for reading, so its programs may be executed; and names in it for writing, which may not."""
    stage(attacker)
    words = [
        *("--permission", "--allow-child-process", f"--allow-fs-read={attacker.home}/"),
        f"--allow-fs-write={attacker.path(prefix)},{attacker.path('drop')}/",
    ]
    body = f"{HEAD}os.environ['MARKER'] = DROP + '/marker'\nput(); print(os.path.getsize(OWN)); execute(OWN)"
    confined = attacker.run([*attacker.command, *words, "-c", attack.source(body, attacker.home)])
    assert not attacker.exists("drop/marker"), confined.said
    assert str(len(attack.program())) in confined.stdout, confined.said


@pytest.mark.parametrize("granted", ["alias", "al*", "alias/in", "alias/o*"])
def test_a_bind_mount_of_a_place_in_a_tree_that_may_be_executed(superuser: Attacker, granted: str) -> None:
    """What is written by one name may not be executed, or mapped as code, by another."""
    stage(superuser)
    for name in ("tree/w/in", "alias"):
        os.makedirs(superuser.path(name))
    source_, place = superuser.path("tree/w"), superuser.path("alias")
    before = [
        *(tool("unshare"), "-m", "--propagation", "private"),
        *("sh", "-c", f'mount --bind {source_} {place} && exec "$@"', "sh"),
    ]
    inner = {"alias": "", "al*": "", "alias/in": "in/", "alias/o*": "o"}[granted]
    body = (
        f"{HEAD}os.environ['MARKER'] = DROP + '/marker'; ALIAS, TREE = HOME + '/alias/{inner}own', HOME + '/tree/w/{inner}own'\n"
        "put(ALIAS); print(os.path.getsize(TREE)); execute(TREE)\n"
        "shutil.copyfile(READ + '/library.so', ALIAS); execute('true', env={**os.environ, 'LD_PRELOAD': TREE})"
    )
    words = [
        *(*superuser.command, "--permission", "--allow-child-process", f"--allow-fs-read={superuser.home}/"),
        f"--allow-fs-write={superuser.path('drop')}/,{superuser.path(granted)}{'' if granted[-1] == '*' else '/'}",
    ]
    confined = superuser.run([*before, *words, "-c", source(body, superuser.home)])
    assert not superuser.exists("drop/marker"), confined.said
    assert str(len(attack.program())) in confined.stdout, confined.said
    # The twin: what lies beside the place is granted for reading only, and runs.
    superuser.put("tree/program", attack.program(), 0o755)
    twin = f"{HEAD}os.environ['MARKER'] = DROP + '/marker'; execute(HOME + '/tree/program')"
    granted_run = superuser.run([*before, *words, "-c", source(twin, superuser.home)])
    assert superuser.exists("drop/marker"), granted_run.said


def test_a_bind_mount_of_what_is_protected(superuser: Attacker) -> None:
    os.mkdir(superuser.path("alias"))
    before = [
        *(tool("unshare"), "-m", "--propagation", "private"),
        *("sh", "-c", f'mount --bind {attack.PACKAGE} {superuser.path("alias")} && exec "$@"', "sh"),
    ]
    code = f"open({superuser.path('alias/planted')!r}, 'w').close()"
    words = [*superuser.command, "--permission", f"--allow-fs-write={superuser.path('alias')}/", "-c", code]
    planted = os.path.join(attack.PACKAGE, "planted")
    try:
        refused = superuser.run([*before, *words])
        assert refused.code == 9, refused.said
        assert "which runs outside the sandbox the next time" in refused.stderr, refused.said
        assert not os.path.exists(planted)
        everything = superuser.run([*before, *words[:-3], "--allow-fs-write=*", *words[-2:]])
        assert not os.path.exists(planted), everything.said
        twin = superuser.run([*before, *words[:-3], "--allow-writable-runtime", *words[-3:]])
        assert os.path.exists(planted), twin.said
    finally:
        if os.path.exists(planted):
            os.unlink(planted)


STARTED_WITH = """
import fcntl, os
def attack():
    for fd in range(3, 64):
        try:
            fcntl.fcntl(fd, 1034)  # F_GET_SEALS: only memory files have seals
            program = open({read!r} + '/program', 'rb').read()
            old = os.pread(fd, 1 << 20, 0)
            again = os.open(f'/proc/self/fd/{{fd}}', os.O_RDONLY)
            os.pwrite(fd, program, 0); os.ftruncate(fd, len(program))
        except OSError as error:
            continue
        if os.fork() == 0:
            os.dup2(again, 200); os.closerange(3, 200)
            os.environ['MARKER'] = {write!r} + '/marker'
            os.execve(200, ['x'], os.environ)
        os.wait(); os.pwrite(fd, old, 0); os.ftruncate(fd, len(old))
attack()
"""


@pytest.mark.parametrize("hook", ["sitecustomize.py", "usercustomize.py"])
def test_the_memory_file_of_the_start(attacker: Attacker, hook: str) -> None:
    """Code that the interpreter runs at its start, already confined, sees what the supervisor left for the bootstrap."""
    stage(attacker)
    code = STARTED_WITH.format(read=attacker.path("read"), write=attacker.path("write"))
    attacker.put(f"read/{hook}", code)
    words = [*attacker.command, "--permission", *attacker.grants, "--allow-child-process", "-c", "print('ran')"]
    confined = attacker.run(words, env={"PYTHONPATH": attacker.path("read")})
    assert not marked(attacker), confined.said
    assert "ran" in confined.stdout, confined.said


def test_a_memory_file_does_run_without_the_sandbox(attacker: Attacker) -> None:
    """What the test above is about: the same code, handed such a memory file."""
    stage(attacker)
    code = STARTED_WITH.format(read=attacker.path("read"), write=attacker.path("write"))
    plain = attacker.plain(f"fd = os.memfd_create('x', 0); os.set_inheritable(fd, True)\n{code}")
    assert marked(attacker), plain.said
