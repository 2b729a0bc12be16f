"""Code that the supervisor would run outside of the sandbox: now, or the next time.

The attack: an untrusted checkout that holds modules, hooks and interpreters by names that Python looks for; variables of
Python's that load code; write grants that reach what the supervisor is made of, so that the next start runs it.
What stops it: the command starts an isolated Python when a PYTHON* variable could load something, and nothing is looked
for in the working directory or the script's folder; another interpreter is never run outside; write grants over the
runtime are refused, and ``*`` leaves it out. Source: DESIGN ("No foreign code runs in the supervisor"); THREATS 12 (sup_*).
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.escape.attack import (
    COMMAND,
    MAKES,
    PACKAGE,
    TOUCHES,
    TOUCHES_OF_LINKS,
    environment,
    leaked,
    mapped_files,
    source,
    writing,
    written,
)

if TYPE_CHECKING:
    from tests.escape.attack import Attacker
    from tests.support import Finished

# Whoever runs this may write to ``secret`` only outside of the sandbox.
PLANTED = "try:\n    open({secret!r} + '/ran-{name}', 'w').close()\nexcept OSError:\n    pass\n"
# What the supervisor, the interpreter's start and the standard library import by these names.
MODULES = (
    "sitecustomize", "usercustomize", "ctypes", "_ctypes", "psutil", "resource", "shlex", "tomllib", "tomli", "signal",
    "subprocess", "shutil", "json", "typing", "pwd", "fcntl", "importlib", "encodings", "marshal", "gc", "types", "ast",
    "runpy_", "evil", "pyseccomp", "logging", "random", "socket", "select", "_socket", "readline", "rlcompleter", "code",
)  # fmt: skip
PROGRAMS = ("python3", "python", "sh", "readlink", "ldconfig", "gcc", "ld", "uname")
MAIN = "print('inside')\n"


def plant(attacker: Attacker) -> str:
    """Lay out a checkout full of traps, and return its path."""
    secret = attacker.path("secret")
    for name in MODULES:
        attacker.put(f"checkout/{name}.py", PLANTED.format(secret=secret, name=name))
    attacker.put("checkout/evil.pth", f"import os; open({secret!r} + '/ran-pth', 'w').close()\n")
    for name in PROGRAMS:
        attacker.put(f"checkout/{name}", f"#!/bin/sh\n: > {secret}/ran-program-{name}\n", 0o755)
    attacker.put("checkout/main.py", MAIN)
    attacker.put("checkout/__main__.py", MAIN)
    attacker.put("checkout/start.py", PLANTED.format(secret=secret, name="startup"))
    attacker.put("checkout/read-only.toml", '[permission]\nallow-fs-write = ["*"]\n')
    attacker.put("checkout/pyvenv.cfg", f"home = {attacker.path('checkout')}\n")
    return attacker.path("checkout")


def plant_package(attacker: Attacker) -> None:
    """Lay out a package of our own name."""
    for name in ("__init__", "__main__", "image", "cli/__init__", "cli/main", "errors"):
        attacker.put(
            f"checkout/sandboxed_python/{name}.py",
            PLANTED.format(secret=attacker.path("secret"), name=f"package-{name.replace('/', '-')}"),
        )


def ran(attacker: Attacker) -> list[str]:
    """Return the names of what has run outside of the sandbox."""
    return sorted(name for name in os.listdir(attacker.path("secret")) if name.startswith("ran-"))


def clean(attacker: Attacker) -> None:
    for name in ran(attacker):
        os.unlink(attacker.path("secret", name))


VARIABLES: dict[str, dict[str, str]] = {
    "none": {},
    "PYTHONPATH": {"PYTHONPATH": "."},
    "an empty PYTHONPATH": {"PYTHONPATH": ""},
    "PYTHONPATH with an empty entry": {"PYTHONPATH": "/nonexistent:"},
    "PYTHONSTARTUP": {"PYTHONSTARTUP": "start.py"},
    "PYTHONWARNINGS": {"PYTHONWARNINGS": "error::evil.Category", "PYTHONPATH": "."},
    "PYTHONBREAKPOINT": {"PYTHONBREAKPOINT": "evil.f", "PYTHONPATH": "."},
    "PYTHONUSERBASE": {"PYTHONUSERBASE": "."},
    "PYTHONINSPECT": {"PYTHONINSPECT": "1"},
    "PYTHONPYCACHEPREFIX": {"PYTHONPYCACHEPREFIX": "{secret}/ran-cache"},
    "PYTHONIOENCODING": {"PYTHONIOENCODING": "evil"},
    "PYTHONSAFEPATH": {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"},
    "PYTHONPLATLIBDIR": {"PYTHONPLATLIBDIR": "checkout"},
    "a variable named to hide another": {"A": "\nPYTHONPATH=.", "PYTHONPATH": "."},
    "ENV": {"ENV": "./sh", "BASH_ENV": "./sh"},
    "LD_LIBRARY_PATH": {"LD_LIBRARY_PATH": "."},
    "OPENSSL_CONF": {"OPENSSL_CONF": "./evil.cnf", "GCONV_PATH": ".", "LOCPATH": "."},
}


@pytest.mark.parametrize("name", VARIABLES)
def test_variables(attacker: Attacker, name: str) -> None:
    checkout = plant(attacker)
    plant_package(attacker)
    env = {key: value.format(secret=attacker.path("secret")) for key, value in VARIABLES[name].items()}
    for words in (["main.py"], ["-c", MAIN]):
        ended = attacker.run([*attacker.command, "--permission", *words], cwd=checkout, env=env)
        assert ran(attacker) == [], f"{words}: {ended.said}"
        if name not in ("PYTHONIOENCODING", "PYTHONPLATLIBDIR"):
            assert "inside" in ended.stdout, ended.said


def test_what_the_variables_do_without_the_sandbox(attacker: Attacker) -> None:
    """The twin: plain python runs the hook; and in the sandbox it runs, too, inside."""
    checkout = attacker.path("checkout")
    attacker.put("checkout/main.py", MAIN)
    attacker.put("checkout/sitecustomize.py", PLANTED.format(secret=attacker.path("secret"), name="sitecustomize"))
    plain = attacker.run([attacker.python, "main.py"], cwd=checkout, env={"PYTHONPATH": "."})
    assert "ran-sitecustomize" in ran(attacker), plain.said
    clean(attacker)
    attacker.put("checkout/sitecustomize.py", "print('hook')\n")
    words = [*attacker.command, "--permission", f"--allow-fs-read={checkout}/", "main.py"]
    confined = attacker.run(words, cwd=checkout, env={"PYTHONPATH": "."})
    assert confined.stdout == "hook\ninside\n", confined.said


@pytest.mark.parametrize(
    "words",
    [
        ["--permission", "-m", "main"],
        ["--permission", "--allow-fs-read=.", "."],
        ["--permission", "--allow-fs-read=.", "-m", "main"],
        ["--permission", "-I", "main.py"],
        ["--permission", "-i", "main.py"],
        ["--permission", "-X", "importtime", "main.py"],
        ["--permission", "-W", "error::evil.Category", "main.py"],
        ["--permission", "--policy", "read-only", "main.py"],
        ["--permission", "--allow-child-process", "--allow-worker", "--allow-fs-read=.", "main.py"],
        ["--explain", "--permission", "main.py"],
        ["--explain", "--json", "--permission", "main.py"],
        ["--check"],
        ["--version"],
        ["--help"],
        ["--permission", "-"],
        ["--permission", "--python", "./python3", "main.py"],
        ["--permission", "--python", "./python3", "-V"],
        ["--permission", "--explain", "--python", "./python3", "main.py"],
    ],
    ids=" ".join,
)
def test_command_lines(attacker: Attacker, words: list[str]) -> None:
    checkout = plant(attacker)
    plant_package(attacker)
    for env in ({}, {"PYTHONPATH": "."}):
        ended = attacker.run([*attacker.command, *words], cwd=checkout, env=env)
        assert ran(attacker) == [], f"{env}: {ended.said}"


def test_as_a_module(attacker: Attacker) -> None:
    """``python -m`` looks into the working directory first: a package of our name there wins, before any code of ours.

    All else that lies there isn't run. The command doesn't have this weakness; the documentation says to use it.
    """
    checkout = plant(attacker)
    # What Python itself imports before the module's first line is beyond us.
    for name in ("runpy_", "importlib", "encodings", "types", "typing"):
        os.unlink(os.path.join(checkout, f"{name}.py"))
    words = [attacker.python, "-m", "sandboxed_python", "--permission", "main.py"]
    ended = attacker.run(words, cwd=checkout)
    assert ended.stdout == "inside\n", ended.said
    assert ran(attacker) == [], ended.said


def refused(ended: Finished) -> bool:
    return ended.code == 9 and "--allow-fs-write" in ended.stderr


def test_the_interpreter_of_the_python_option(attacker: Attacker) -> None:
    """``--python`` of an untrusted checkout: neither a script of that name nor the hooks of its environment run outside."""
    plant(attacker)
    _, site = environment(attacker)
    secret = attacker.path("secret")
    for name in ("sitecustomize", "usercustomize"):
        attacker.put(f"{site[len(attacker.home) + 1 :]}/{name}.py", PLANTED.format(secret=secret, name=name))
    attacker.put(
        f"{site[len(attacker.home) + 1 :]}/evil.pth", f"import os; open({secret!r} + '/ran-pth', 'w').close()\n"
    )
    python = attacker.path("venv/bin/python3")
    plain = attacker.run([python, "-c", "pass"])
    assert "ran-pth" in ran(attacker), plain.said  # a distribution's own sitecustomize may come before the other
    clean(attacker)
    confined = attacker.run([*attacker.command, "--permission", "--python", python, "-c", "print('inside')"])
    assert ran(attacker) == [], confined.said
    assert "inside" in confined.stdout, confined.said


@pytest.mark.parametrize("variable", ["__PYVENV_LAUNCHER__", "PYTHONEXECUTABLE"])
def test_variables_that_move_the_environment(attacker: Attacker, variable: str) -> None:
    """These tell an interpreter that it is another one, whose site-packages it then loads; ``-I`` doesn't stop that."""
    _, site = environment(attacker)
    attacker.put(
        f"{site[len(attacker.home) + 1 :]}/evil.pth",
        f"import os; open({attacker.path('secret')!r} + '/ran-pth', 'w').close()\n",
    )
    env = {variable: "./venv/bin/python3"}
    plain = attacker.run([attacker.python, "-c", "pass"], cwd=attacker.home, env=env)
    if not ran(attacker):
        pytest.skip(f"needs an interpreter that {variable} moves; {attacker.python} stays where it is: {plain.said}")
    clean(attacker)
    confined = attacker.run([*attacker.command, "--permission", "-c", "print('inside')"], cwd=attacker.home, env=env)
    assert ran(attacker) == [], confined.said
    assert "inside" in confined.stdout, confined.said


@pytest.mark.parametrize("place", ["site-packages", "pyvenv.cfg", "lib"])
def test_links_in_another_environment(attacker: Attacker, place: str) -> None:
    """What comes without a flag is the environment, not what a link in it leads to."""
    _, site = environment(attacker)
    if place == "site-packages":
        shutil.rmtree(site)
        os.symlink(attacker.path("secret"), site)
    elif place == "pyvenv.cfg":
        os.unlink(attacker.path("venv/pyvenv.cfg"))
        os.symlink(attacker.path("secret/data"), attacker.path("venv/pyvenv.cfg"))
    else:
        shutil.rmtree(attacker.path("venv/lib"))
        os.makedirs(attacker.path("secret/x"))
        os.symlink(attacker.path("secret"), attacker.path("venv/lib"))
    body = source("print(open(SECRET + '/data').read())", attacker.home)
    words = ["--permission", "--python", attacker.path("venv/bin/python3"), "-c", body]
    confined = attacker.run([*attacker.command, *words])
    assert not leaked(confined), confined.said


@pytest.mark.parametrize("place", ["venv/lib/", "venv/bin/", "venv/", "venv/pyvenv.cfg", "venv/lib*", "v*"])
def test_a_write_grant_over_the_supervisor(attacker: Attacker, place: str) -> None:
    command, _ = environment(attacker)
    grant = f"--allow-fs-write={attacker.path(place)}"
    ended = attacker.run([*command, "--permission", grant, "-c", "print('inside')"])
    assert refused(ended), ended.said
    # The twin: who insists may.
    ended = attacker.run([*command, "--permission", "--allow-writable-runtime", grant, "-c", "print('inside')"])
    assert ended.stdout == "inside\n", ended.said


@pytest.mark.parametrize("place", ["venv/lib/", "venv/bin/", "venv/pyvenv.cfg"])
def test_a_write_grant_over_the_supervisor_with_another_python(attacker: Attacker, place: str) -> None:
    """It is the supervisor's own files that the next start runs, whatever interpreter the program has."""
    command, _ = environment(attacker)
    words = ["--permission", "--python", attacker.python, f"--allow-fs-write={attacker.path(place)}"]
    ended = attacker.run([*command, *words, "-c", "print('inside')"])
    assert refused(ended), ended.said


@pytest.mark.parametrize("grant", ["project/", "project/src/", "project/src/sitecustomize.py", "project/s*"])
def test_a_write_grant_over_a_path_entry(attacker: Attacker, grant: str) -> None:
    """An editable install puts its sources on the path of every Python of the environment, the supervisor's included."""
    attacker.put("project/src/project.py", "")
    command, _ = environment(attacker, attacker.path("project/src"))
    words = [*command, "--permission", f"--allow-fs-write={attacker.path(grant)}"]
    code = PLANTED.format(secret=attacker.path("secret"), name="sitecustomize")
    attack = f"open({attacker.path('project/src/sitecustomize.py')!r}, 'w').write({code!r})"
    ended = attacker.run([*words, "-c", attack])
    attacker.run([*command, "--permission", "-c", "pass"])
    assert ran(attacker) == [], ended.said
    assert refused(ended), ended.said


def test_a_write_grant_over_the_zip_on_the_path(attacker: Attacker) -> None:
    """It isn't there, and comes before the standard library."""
    path = attacker.run([attacker.python, "-c", "import sys; print([p for p in sys.path if p.endswith('.zip')][0])"])
    ended = attacker.run([*attacker.command, "--permission", f"--allow-fs-write={path.stdout.strip()}", "-c", "pass"])
    assert refused(ended), ended.said


@pytest.mark.parametrize(
    "env", [{}, {"PYTHONPATH": "."}, {"PYTHONNOUSERSITE": "1"}], ids=["", "isolated", "no user site"]
)
@pytest.mark.parametrize("exists", [True, False])
def test_a_write_grant_over_the_users_site_packages(attacker: Attacker, exists: bool, env: dict[str, str]) -> None:  # noqa: FBT001
    """Outside of virtual environments; also where this start doesn't use them: the next one may."""
    real = attacker.run(
        [attacker.python, "-c", "import os, sys; print(os.path.realpath(sys.executable))"]
    ).stdout.strip()
    with open(COMMAND) as file:
        text = file.read()
    launcher = attacker.put("launcher.py", f"import sys; sys.path.append({os.path.dirname(PACKAGE)!r})\n" + text)
    version = attacker.run([real, "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"]).stdout.strip()
    if exists:
        attacker.put(f"user/.local/lib/{version}/site-packages/x.py", "")
    isolated = ["-I"] if "PYTHONPATH" in env else []
    for grant in ("user/.local/", "user/", f"user/.local/lib/{version}/site-packages/evil.pth", "user/.l*"):
        words = ["--permission", f"--allow-fs-write={attacker.path(grant)}", "-c", "print('inside')"]
        ended = attacker.run([real, *isolated, launcher, *words], env={"HOME": attacker.path("user"), **env})
        assert refused(ended), ended.said


@pytest.mark.parametrize("grant", ["*", "/", "/*", "/t*", "/v*"])
def test_everything_leaves_the_supervisor_out(attacker: Attacker, grant: str) -> None:
    """Broad grants aren't refused; what the supervisor runs stays as it is."""
    if grant in ("/t*", "/v*") and not attacker.home.startswith(grant[:-1]):
        grant = attacker.home[:3] + "*"
    attacker.put("project/src/project.py", "")
    command, site = environment(attacker, attacker.path("project/src"))
    paths = [
        f"{site}/evil.pth", f"{site}/own.pth", attacker.path("venv/pyvenv.cfg"), attacker.path("venv/bin/python3"),
        attacker.path("venv/bin/sandboxed-python"), attacker.path("venv/bin/new"), f"{PACKAGE}/errors.py",
        f"{PACKAGE}/__pycache__/new.pyc", attacker.path("project/src/sitecustomize.py"),
    ]  # fmt: skip
    body = (
        f"for path in {paths!r}:\n    for mode in 'x', 'r+', 'a':\n        try:\n            open(path, mode).close()\n"
        "            print('OPENED', path, mode)\n        except OSError: pass\n"
        f"    try:\n        os.rename(path, path + '-moved'); os.rename(path + '-moved', path)\n        print('MOVED', path)\n"
        "    except OSError: pass\n"
        "open(WRITE + '/new', 'w').close()"
    )
    words = ["--permission", "--allow-fs-read=*", f"--allow-fs-write={grant}", "-c", source(body, attacker.home)]
    ended = attacker.run([*command, *words])
    if grant not in ("*", "/", "/*") and refused(ended):
        return  # as good
    assert "TRIED: done" in ended.stdout, ended.said
    assert "OPENED" not in ended.stdout, ended.said
    assert "MOVED" not in ended.stdout, ended.said
    assert attacker.exists("write/new"), ended.said
    clean_up = [f"{PACKAGE}/__pycache__/new.pyc"]
    assert not any(os.path.exists(path) for path in clean_up)


def multiarch(attacker: Attacker) -> str:
    """Return the folder that the system's C library lies in."""
    return os.path.dirname(next(path for path in mapped_files(attacker) if "/libc." in path or "/libc-" in path))


# Whatever runs next, confined or not, is made of these, or told by these what to load.
SYSTEM = (
    "/etc/ld.so.preload",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.conf.d/",
    "/etc/ld.so.conf.d/new.conf",
    "/etc/ld.so*",
    "/etc/",
    "/lib/",
    "/usr/lib",
    "/usr/lib/new/new.so",
    "/usr/lib*",
    "/usr/local/lib/",
    "/usr/",
    "/usr/bin/",
    "/usr/bin/new",
    "/usr/bin/da*",
    "/usr/local/bin/",
    "/usr/sbin/",
    "/bin/sh",
    "/bin/",
    "/bin/s*",
    "/bin*",
    "/sb*",
)


@pytest.mark.parametrize("grant", [*SYSTEM, "{multiarch}/", "{multiarch}/lib*", "{multiarch}/libc.so.6"])
def test_a_write_grant_over_what_every_program_runs(attacker: Attacker, grant: str) -> None:
    """The supervisor's next start is such a program, whatever the grant was meant for."""
    if "{multiarch}" in grant:
        grant = grant.format(multiarch=multiarch(attacker))
    words = ["--permission", f"--allow-fs-write={grant}", "-c", "print('inside')"]
    ended = attacker.run([*attacker.command, *words])
    assert refused(ended), ended.said
    assert "inside" not in ended.stdout, ended.said
    # The twin: who insists may.
    ended = attacker.run([*attacker.command, "--allow-writable-runtime", *words])
    assert ended.stdout == "inside\n", ended.said


def test_a_write_grant_over_what_the_interpreter_is_made_of(attacker: Attacker) -> None:
    """Its own file, libpython, every library that it needs, by whichever name: none may be granted."""
    found = mapped_files(attacker)
    assert [path for path in found if "/libc" in path], found
    assert os.path.realpath(attacker.python) in found
    for path in found:
        names = (
            path,
            f"{os.path.dirname(path)}/",
            f"{path[:-1]}*",
            f"{os.path.dirname(path)}/./{os.path.basename(path)}",
        )
        for grant in names:
            ended = attacker.run([*attacker.command, "--permission", f"--allow-fs-write={grant}", "-c", "pass"])
            assert refused(ended), f"{grant}: {ended.said}"


@pytest.mark.parametrize("way", ["a link", "two links", "a link above", "by ..", "a link to a file"])
def test_a_write_grant_over_site_packages_through_a_link(attacker: Attacker, way: str) -> None:
    command, site = environment(attacker)
    link = attacker.path("write/link")
    target, grant = {
        "a link": (site, f"{link}/"),
        "two links": ("second", f"{link}/"),
        "a link above": (attacker.path("venv"), f"{link}/lib/"),
        "by ..": (attacker.path("venv/bin"), f"{link}/../lib/"),
        "a link to a file": (f"{site}/own.pth", link),
    }[way]
    os.symlink(target, link)
    os.symlink(site, attacker.path("write/second"))
    words = ["--permission", f"--allow-fs-write={grant}", "-c", "print('inside')"]
    with support.unchanged(attacker.path("venv")):
        ended = attacker.run([*command, *words])
    assert refused(ended), ended.said
    # The twin: the same grant is taken where it leads elsewhere.
    os.unlink(link)
    os.mkdir(attacker.path("write/harmless"))
    os.symlink(attacker.path("write/harmless"), link)
    ended = attacker.run([*command, "--permission", f"--allow-fs-write={link}", "-c", "print('inside')"])
    assert ended.stdout == "inside\n", ended.said


@pytest.mark.parametrize("grant", ["*", "/"])
def test_everything_leaves_out_what_every_program_runs(attacker: Attacker, grant: str) -> None:
    """By raw system calls, as the user who could. Nothing is harmed if it fails: the calls leave files as they were."""
    new = f"sandboxed-python-test-{os.getpid()}"
    folders = ["/usr/bin", "/bin", "/usr/lib", "/lib", "/usr/local/bin", "/etc/ld.so.conf.d", multiarch(attacker)]
    files = ["/etc/ld.so.preload", "/etc/ld.so.cache", "/etc/ld.so.conf", "/bin/sh", "/usr/bin/env", "/usr/bin/date"]
    # Links, where the two are one folder: whoever replaces them has all the programs and libraries replaced.
    files += [path for path in ("/bin", "/sbin", "/lib", "/lib64") if os.path.islink(path)]
    paths = [*files, *mapped_files(attacker), *[f"{folder}/{new}" for folder in folders if os.path.isdir(folder)]]

    def seen() -> list[object]:
        return [(path, os.lstat(path).st_ctime_ns if os.path.lexists(path) else None) for path in paths]

    link = attacker.path("secret/link")
    os.symlink("data", link)
    attacker.own(attacker.path("secret"))
    before = seen()
    flags = ("--allow-ffi", "--allow-fs-read=*", f"--allow-fs-write={grant}")
    ended = attacker.confined(
        writing([*paths, attacker.path("secret/data"), attacker.path("secret/new"), link]), *flags
    )
    done = written(ended)
    # The twin: the same calls, elsewhere.
    assert done.pop(attacker.path("secret/data")) == TOUCHES, ended.said
    assert done.pop(attacker.path("secret/new")) == MAKES, ended.said
    assert done.pop(link) == TOUCHES_OF_LINKS, ended.said
    assert done == dict.fromkeys(paths, ()), ended.said
    assert seen() == before, ended.said


@pytest.mark.parametrize("grant", ["*", "/", "{home}/v*"])
def test_a_link_on_the_way_to_the_interpreter_stays(attacker: Attacker, grant: str) -> None:
    """The environment's interpreter is often a link to a link: whoever replaces one chooses what runs the next time."""
    command, _ = environment(attacker)
    python = attacker.path("venv/bin/python3")
    real = os.path.realpath(python)
    via, elsewhere = attacker.path("via"), attacker.path("elsewhere")
    for link in (via, elsewhere):
        os.symlink(os.path.dirname(real), link)
    os.unlink(python)
    os.symlink(f"{via}/{os.path.basename(real)}", python)
    attacker.own(attacker.home)
    body = "".join(
        f"try: os.rename({link!r}, {link!r} + '-moved'); print('MOVED', {link!r})\nexcept OSError: pass\n"
        for link in (via, elsewhere)
    )
    words = ["--permission", "--allow-fs-read=*", f"--allow-fs-write={grant.format(home=attacker.home)}"]
    ended = attacker.run([*command, *words, "-c", source(body, attacker.home)])
    assert os.readlink(via) == os.path.dirname(real), ended.said
    if grant.startswith("{home}"):
        assert refused(ended), ended.said
    else:
        assert not attacker.exists("elsewhere"), ended.said  # the twin


def test_who_insists_may_write_to_his_own_environment(attacker: Attacker) -> None:
    """The twin: with the flag for it each of these calls works, on files that whoever attacks here owns."""
    command, site = environment(attacker)
    files = [f"{site}/own.pth", attacker.path("venv/pyvenv.cfg"), attacker.path("venv/bin/sandboxed-python")]
    paths = [*files, f"{site}/evil.pth", attacker.path("venv/bin/new")]
    body = source(writing(paths), attacker.home)
    # What the program may write isn't mapped as code without --allow-addons, the interpreter's own modules included.
    flags = ["--permission", "--allow-addons", "--allow-fs-read=*"]
    for grant in ("*", "/", f"{attacker.home}/venv/"):
        words = [*command, *flags, f"--allow-fs-write={grant}"]
        granted = attacker.run([*words, "--allow-writable-runtime", "-c", body])
        expected = dict.fromkeys(files, TOUCHES) | dict.fromkeys(paths[len(files) :], MAKES)
        assert written(granted) == expected, granted.said
        with support.unchanged(attacker.path("venv")):
            denied = attacker.run([*words, "-c", body])
        assert refused(denied) or written(denied) == dict.fromkeys(paths, ()), denied.said


@pytest.mark.parametrize(
    "grant",
    [
        "/proc",
        "/proc/self/",
        "/proc/self/mem",
        "/sys/",
        "/sys/kernel",
        "/dev",
        "/dev/mem",
        "/dev/sda",
        "/proc/sys/kernel/*",
    ],
)
def test_the_kernels_own_trees_by_name(attacker: Attacker, grant: str) -> None:
    ended = attacker.run([*attacker.command, "--permission", f"--allow-fs-write={grant}", "-c", "print('inside')"])
    assert refused(ended), ended.said


def test_the_kernels_own_trees_by_a_link(attacker: Attacker) -> None:
    os.symlink("/proc/self", attacker.path("write/link"))
    ended = attacker.run(
        [*attacker.command, "--permission", f"--allow-fs-write={attacker.path('write/link')}/", "-c", "pass"]
    )
    assert refused(ended), ended.said
