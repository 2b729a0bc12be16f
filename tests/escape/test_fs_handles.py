"""Files past their paths: handles, and the kernel's reports of what others do.

The attack: ``open_by_handle_at`` (root), ``name_to_handle_at`` as an oracle, inotify for names in foreign folders,
fanotify for open descriptors of foreign files (root).
What stops it: the static seccomp filter has none of these calls; ``CAP_DAC_READ_SEARCH`` and ``CAP_SYS_ADMIN`` are cut.
Source: open_by_handle_at(2), inotify(7), fanotify(7); THREATS 2 (fsr_handle, fsr_inotify, fsr_fanotify).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.escape.attack import TOKEN, leaked, witness

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

HANDLE = """
handle = ctypes.create_string_buffer((128).to_bytes(4, 'little') + bytes(132), 136)
call('name_to_handle_at', -100, (SECRET + '/data').encode(), handle, ctypes.create_string_buffer(8), 0)
print('HANDLE')
"""


def test_a_handle_opened(superuser: Attacker) -> None:
    superuser.must_fail(
        f"{HANDLE}print(os.read(call('open_by_handle_at', raw_open(READ), handle, 0), 99).decode())",
        "--allow-ffi",
        harm=leaked,
    )


def test_a_handle_of_a_granted_file_walked_on(superuser: Attacker) -> None:
    """The number of a file is easy to guess, so a handle need not come from its own name."""
    superuser.must_fail(
        "import struct; number = os.stat(SECRET + '/data').st_ino\n"
        "handle = ctypes.create_string_buffer((128).to_bytes(4, 'little') + bytes(132), 136)\n"
        "call('name_to_handle_at', -100, (READ + '/data').encode(), handle, ctypes.create_string_buffer(8), 0)\n"
        "print(attempt('open_by_handle_at', raw_open(READ), handle, 0))",
        "--allow-ffi",
        "--allow-fs-metadata",
        harm=lambda ended: "did" in ended.stdout,
    )


def test_a_handle_as_an_oracle(attacker: Attacker) -> None:
    attacker.must_fail(HANDLE, "--allow-ffi", harm=lambda ended: "HANDLE" in ended.stdout)


def test_inotify(attacker: Attacker) -> None:
    code = (
        f"import time; print('ready')\nfor n in range(1000):\n  time.sleep(0.02)\n"
        f"  try: open({attacker.path('secret', TOKEN)!r}, 'w').close()\n  except OSError: pass"
    )
    with witness(attacker, code):
        attacker.must_fail(
            "fd = call('inotify_init1', 0); call('inotify_add_watch', fd, SECRET.encode(), 0xFFF)\n"
            "print(os.read(fd, 4096))",
            "--allow-ffi",
            harm=leaked,
        )


def test_fanotify(superuser: Attacker) -> None:
    """Every event brings an open descriptor."""
    path = superuser.path("secret/data")
    code = (
        "import time; print('ready')\nfor n in range(1000):\n  time.sleep(0.02)\n"
        f"  try: open({path!r}).close()\n  except OSError: pass"
    )
    with witness(superuser, code):
        superuser.must_fail(
            "import struct; fd = call('fanotify_init', 0, 0)\n"
            "call('fanotify_mark', fd, 1, 0x20, -100, (SECRET + '/data').encode())\n"
            "print(os.pread(struct.unpack_from('i', os.read(fd, 24), 16)[0], 99, 0).decode())",
            "--allow-ffi",
            harm=leaked,
        )
