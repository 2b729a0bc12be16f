"""What a Python that is started in the sandbox imports first: it fetches its permissions, and installs the hook.

Runs in: child. This folder is on ``PYTHONPATH`` of what a confined program starts (``child/inherit.py``). Whatever
happens here, the interpreter then starts as if the entry weren't there: its own ``sitecustomize`` is run, if there is
one. Outside of a sandbox nobody answers, and nothing else is done. Any Python must be able to read this file, Python 2
and 3.6, too: for those that are older than this package the kernel's part is all there is.
"""

import os
import sys

_BASELINE = frozenset(sys.modules) - frozenset((__name__,))
_PACKAGE = "sandboxed_python"
_WIRE, _POLICY = 0x7FFFFFF5, "sandboxed-python.policy"  # of record/wire.py


def _run():
    here = os.path.dirname(__file__)
    known = set(sys.path_importer_cache) - set((here, here + "/"))
    sys.path[:] = [entry for entry in sys.path if entry != here]
    able = sys.version_info >= (3, 10) and hasattr(os, "setxattr")
    answer = _ask() if able else b""
    if hasattr(os.environ, "_data"):
        _clean(os.fsencode(here), inside=answer is not None)
    if answer and not hasattr(sys, "permission"):
        try:
            _boot(os.path.dirname(os.path.dirname(here)), answer)
        except Exception:  # files that can't be read, a newer Python: the kernel holds
            for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
                del sys.modules[name]
    for entry in set(sys.path_importer_cache) - known:
        del sys.path_importer_cache[entry]
    sys.modules.pop(__name__, None)


def _ask():
    """Return the supervisor's answer to ``record.wire.POLICY``, None if there is no supervisor.

    The call succeeds with the answer's length, which ``os.setxattr`` takes for a failure: so what counts is whether
    there is an answer in the buffer. It starts with marshal's letter for a dict.
    """
    for size in (1 << 14, 1 << 20, 1 << 26):
        answer = bytearray(size)
        try:
            os.setxattr(_WIRE, _POLICY, answer)
        except OSError as error:
            if not answer[0] and error.errno != 34:  # ERANGE: the buffer is too small
                return None
        if answer[0]:
            return answer
    return None


def _clean(here, inside):
    """Take the entry out of ``os.environ``; outside of a sandbox out of the C library's environment, too."""
    name = b"PYTHONPATH"
    variables = os.environ._data  # type: ignore[attr-defined]
    first, colon, rest = variables.get(name, b"").partition(b":")
    if first not in (here, here + b"/"):
        return
    if colon or first != here:
        variables[name] = rest
        if not inside:
            os.putenv(name, rest)
    else:
        del variables[name]
        if not inside:
            os.unsetenv(name)


def _boot(folder, answer):
    """Load the package from where it lies, whatever ``sys.path`` would find under its name, and let it go on."""
    import _frozen_importlib
    import _frozen_importlib_external
    import marshal

    try:
        with open(folder + "/__pycache__/again." + sys.implementation.cache_tag + ".image", "rb", 0) as file:
            head = marshal.loads(file.read(4096))
            names = {"sys": sys, "marshal": marshal, "_file": file, "_head": head, "_folder": os.path.dirname(folder)}
            exec(head[0], names)
    except Exception:  # no image, or of another version: import everything
        pass
    if _PACKAGE not in sys.modules:
        found = _frozen_importlib_external.PathFinder.find_spec(_PACKAGE, [os.path.dirname(folder)])
        _frozen_importlib._load(found)  # type: ignore[attr-defined]
    from sandboxed_python.child import boot_child

    boot_child.run(answer, _BASELINE, lambda: __import__(_PACKAGE + ".launch.narrow", fromlist=["narrow"]).narrow)


_run()
import sitecustomize  # the one that Python would have found, if any
