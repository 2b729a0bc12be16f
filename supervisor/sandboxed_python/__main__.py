"""``python -m sandboxed_python``: starts over as ``python -I``, since here the working directory is on ``sys.path``.

Runs in: supervisor.
"""

import os
import sys

if not sys.flags.isolated:
    os.execv(sys.executable, [sys.executable, "-I", os.path.abspath(__file__), *sys.argv[1:]])

_BASELINE = frozenset(sys.modules)

if __name__ == "__main__":
    from sandboxed_python import image

    image.load("start")
    from sandboxed_python.cli.main import main

    main(_BASELINE)
