"""Having the supervisor look into another process's folder in /proc.

The attack: with all of /proc granted, Landlock still keeps the program from looking into the processes outside (the
kernel asks whether it could trace them): where their memory is mapped, what they have open. The supervisor could trace
those of its user, and it is who looks at metadata for the program.
What stops it: the supervisor looks at nothing there that the kernel would ask this for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import SLEEPER, witness

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

# Where the other's memory is mapped, by a guess that is right.
FIRST = "'-'.join(f'{int(word, 16):x}' for word in open('/proc/self/maps').readline().split()[0].split('-'))"
CODE = f"print({FIRST}, flush=True); import time; time.sleep(60)"
WAYS = {
    "lstat": "os.lstat(PATH); print('TOLD')",
    "statx": "call('statx', -100, os.fsencode(PATH), 0x100, 0x7FF, ctypes.create_string_buffer(256)); print('TOLD')",
    "from the folder": "os.lstat(os.path.basename(PATH), dir_fd=os.open(os.path.dirname(PATH), os.O_PATH)); print('TOLD')",
    "by a thread": "os.lstat(PATH.replace('/map_files', '/task/../map_files')); print('TOLD')",
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_where_its_memory_is(attacker: Attacker, way: str) -> None:
    with witness(attacker, CODE) as other:
        attacker.must_fail(
            f"PATH = '/proc/{other.pid}/map_files/{other.said}'\n{way}",
            "--allow-ffi",
            "--allow-fs-read=/proc/",
            harm=lambda ended: "TOLD" in ended.stdout,
        )


@pytest.mark.parametrize("after", ["", "/..", "/../../stat", "/x"])
def test_a_wrong_guess_answers_alike(attacker: Attacker, after: str) -> None:
    with witness(attacker, CODE) as other:
        body = (
            "for name in (RIGHT, '1000-2000'):\n"
            f"    try: print('ANSWER', os.lstat('/proc/{other.pid}/map_files/' + name + {after!r}).st_mode)\n"
            "    except OSError as error: print('ANSWER', error.errno)"
        )
        attacker.must_fail(
            f"RIGHT = {other.said!r}\n{body}",
            "--allow-fs-read=/proc/",
            harm=lambda ended: len({line for line in ended.stdout.splitlines() if "ANSWER" in line}) > 1,
        )


def test_its_descriptors_flags(attacker: Attacker) -> None:
    with witness(attacker, SLEEPER) as other:
        attacker.must_fail(
            f"print('TOLD', os.stat('/proc/{other.pid}/fdinfo/0').st_mode)",
            "--allow-fs-read=/proc/",
            harm=lambda ended: "TOLD" in ended.stdout,
        )


def test_the_twin(attacker: Attacker) -> None:
    """What the kernel tells everybody, and all of the program's own."""
    with witness(attacker, SLEEPER) as other:
        body = (
            f"for path in ('/proc/{other.pid}', '/proc/{other.pid}/stat', '/proc/{other.pid}/task', '/proc/{other.pid}/map_files', '/proc/self/fd/0',\n"
            f"    '/proc/self/fdinfo/0', '/proc/self/map_files/' + {FIRST}):\n"
            "    os.lstat(path)"
        )
        confined = attacker.confined(body, "--allow-fs-read=/proc/")
        assert "TRIED: done" in confined.stdout, confined.said
