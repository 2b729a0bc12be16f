"""The script that a freshly exec'ed, already confined interpreter runs: ``python [options] boot_exec.py FD``.

Runs in: child. FD is a memory file with what the supervisor has to say (``launch.start.write_memo``).
"""

import sys

_BASELINE = frozenset(sys.modules)


def _main() -> None:
    import marshal
    import os

    memo = int(sys.argv[1])
    with os.fdopen(memo, "rb") as file:
        data = marshal.loads(file.read())
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    isolated = getattr(sys.flags, "safe_path", False) or sys.flags.isolated
    if not isolated:
        del sys.path[0]  # the folder of this script
    sys.path.append(home)
    from sandboxed_python.child import boot
    from sandboxed_python.policy.model import Policy

    sys.path.remove(home)
    boot.run(
        Policy.from_data(data["policy"]),
        data["kind"],
        data["target"],
        data["argv"],
        baseline=_BASELINE,
        guarded=data["guarded"],
    )


_main()
