#!/bin/false - python -x skips the first line of this file, too
"""The script that a freshly exec'ed, already confined interpreter runs: ``python [options] boot_exec.py FD``.

Runs in: child. FD is a memory file with what the supervisor has to say (``launch.start.write_memo``).
"""

import os
import sys

_BASELINE = frozenset(sys.modules)


def _main() -> None:
    import marshal

    memo = int(sys.argv[1])
    with os.fdopen(memo, "rb") as file:
        data = marshal.loads(file.read())
    isolated = getattr(sys.flags, "safe_path", False) or sys.flags.isolated
    if not isolated:
        del sys.path[0]  # the folder of this script
    package = _load_package(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from sandboxed_python.child import boot
    from sandboxed_python.policy.model import Policy

    policy = Policy.from_data(data["policy"])
    program = boot.Program(
        policy,
        data["kind"],
        data["target"],
        guarded=data["guarded"],
        reports=data["reports"],
        kernel=lambda: __import__(f"{package}.launch.narrow", fromlist=["narrow"]).narrow,
    )
    boot.run(program, data["argv"], options=data["options"], baseline=_BASELINE)


def _load_package(folder: str) -> str:
    """Import this package from where this file lies, whatever ``sys.path`` would find; return its name."""
    name = os.path.basename(folder)
    package = type(sys)(name)
    package.__file__ = f"{folder}/__init__.py"
    package.__path__ = [folder]
    sys.modules[name] = package
    with open(package.__file__, "rb") as file:
        exec(compile(file.read(), package.__file__, "exec", dont_inherit=True), package.__dict__)
    return name


_main()
