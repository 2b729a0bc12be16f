"""Real programs, and the smallest grants that each needs: what is tested, and the table in ``docs/programs.md``.

Runs in: tests only. Each row that can be run by its words alone is run with its grants, and without each of them
(``test_catalogue.py``); the others have a test of their own, which takes its grants from here.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass, field

from tests import support

# What pip looks at on the machine that it runs on; most machines have a few of these.
ABOUT_THE_MACHINE = (
    "/etc/os-release,/etc/debian_version,/etc/lsb-release,/etc/redhat-release,/etc/passwd,/etc/mime.types"
)
BIN = os.path.dirname(sys.executable)
TEST = "def test(tmp_path):\n    (tmp_path / 'x').write_text('x')\n"
UNITTEST = "import unittest\nclass T(unittest.TestCase):\n    def test(self): pass\n"
UGLY = "x = {  'a':1 }\n"


@dataclass(frozen=True)
class Program:
    """A row.

    Attributes:
        name: what it is called.
        shown: the command after ``sandboxed-python --permission``, as the table shows it.
        grants: options; relative paths start from the folder of ``files``, ``.venv/bin`` is the interpreter's.
        about: what the grants are for.
        words: the command as it is run; "" and no words: it has a test of its own.
        files: name -> text of what lies in the folder; a name with a slash at its end is a folder.
        prints: what is in its output when it has worked.
        leaves: what is in the folder when it has worked, and wasn't before.
        code: the exit code when it has worked.
        package: what has to be installed besides Python, in the extra ``dev`` or ``programs``.
        environment: variables; relative to the folder where they are paths.
        slow: whether running it takes a second or more.
        test: the file of its test, where that isn't ``test_catalogue.py``.
    """

    name: str
    shown: str
    grants: tuple[str, ...]
    about: str
    words: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    prints: str = ""
    leaves: tuple[str, ...] = ()
    code: int = 0
    package: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    slow: bool = False
    test: str = "test_catalogue.py"


PROGRAMS = (
    Program(
        "black, one file",
        "-m black code.py",
        ("--allow-addons", "--allow-fs-read=.", "--allow-fs-write=code.py"),
        "it is compiled; it looks for settings up to the first folder with a `pyproject.toml` or a `.git`",
        ("-m", "black", "code.py"),
        {"code.py": UGLY, "pyproject.toml": "[tool.black]\n"},
        prints="1 file reformatted",
        package="black",
    ),
    Program(
        "black, a folder",
        "-m black .",
        ("--allow-addons", "--allow-worker", "--allow-fs-read=.", "--allow-fs-write=."),
        "a thread, where it may not start processes",
        ("-m", "black", "."),
        {"code.py": UGLY, "more.py": UGLY, "pyproject.toml": "[tool.black]\n"},
        prints="2 files reformatted",
        package="black",
    ),
    Program(
        "black, only looking",
        ".venv/bin/black --check code.py",
        ("--allow-addons", "--allow-fs-read=."),
        "a console script is a script: plain Python's own way to run it",
        (f"{BIN}/black", "--check", "code.py"),
        {"code.py": UGLY, "pyproject.toml": "[tool.black]\n"},
        prints="1 file would be reformatted",
        code=1,
        package="black",
    ),
    Program(
        "ruff",
        "-m ruff check --no-cache .",
        ("--allow-child-process", "--allow-worker", "--allow-fs-read=.,.venv/bin/ruff"),
        "a program of its own, which may be started where it may be read, and which starts threads",
        ("-m", "ruff", "check", "--no-cache", "."),
        {"code.py": "import os\n", "pyproject.toml": "[tool.ruff]\n"},
        prints="F401",
        code=1,
        package="ruff",
    ),
    Program(
        "pytest",
        "-m pytest -p no:cacheprovider",
        ("--allow-fs-read=.", "--allow-fs-write=tmp"),
        "`TMPDIR=tmp`; where plugins are installed that are compiled or start threads, those flags, too, or "
        "`PYTEST_DISABLE_PLUGIN_AUTOLOAD=1` as here; without settings of its own, `--allow-fs-metadata`",
        ("-m", "pytest", "-q", "-p", "no:cacheprovider"),
        {"test_it.py": TEST, "pyproject.toml": "[tool.pytest.ini_options]\n", "tmp/": ""},
        prints="1 passed",
        package="pytest",
        environment={"TMPDIR": "tmp", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    ),
    Program(
        "pytest, by the preset",
        "--policy=test-runner -m pytest",
        ("--policy=test-runner", "--allow-fs-metadata"),
        "with plugins and its cache; the last option where the project has no settings for pytest",
        ("-m", "pytest", "-q", "-W", "error"),
        {"test_it.py": TEST, "tmp/": ""},
        prints="1 passed",
        leaves=(".pytest_cache",),
        package="pytest",
        environment={"TMPDIR": "tmp"},
        slow=True,
    ),
    Program(
        "unittest",
        "-m unittest test_it",
        ("--allow-fs-read=.",),
        "the tests",
        ("-m", "unittest", "test_it"),
        {"test_it.py": UNITTEST},
        prints="OK",
    ),
    Program(
        "venv",
        "-m venv --without-pip new",
        ("--allow-fs-read=new/*", "--allow-fs-write=new/*"),
        "its folder; with pip, also `--allow-child-process`, a temporary folder, and what pip wants to know of the "
        "machine",
        ("-m", "venv", "--without-pip", "new"),
        leaves=("new/pyvenv.cfg",),
    ),
    Program(
        "pip, into a folder",
        "-m pip install --no-index --find-links wheels --target new some-tool",
        (f"--allow-fs-read=wheels,new/*,tmp,{ABOUT_THE_MACHINE}", "--allow-fs-write=new/*,tmp"),
        "`TMPDIR=tmp`; it asks which system it is on",
        (
            *("-m", "pip", "--isolated", "--disable-pip-version-check", "install", "--no-index"),
            *("--find-links", "wheels", "--target", "new", "some-tool"),
        ),
        {"wheels/": "", "tmp/": ""},
        leaves=("new/some_tool/__main__.py",),
        package="pip",
        environment={"TMPDIR": "tmp"},
        slow=True,
    ),
    Program(
        "pip, into another environment",
        "-m pip --python env install --no-index --find-links wheels some-tool",
        ("--allow-child-process", f"--allow-fs-read=wheels,env,tmp,{ABOUT_THE_MACHINE}", "--allow-fs-write=env,tmp"),
        "it starts itself under that interpreter",
        (
            *("-m", "pip", "--isolated", "--disable-pip-version-check", "--python", "env", "install", "--no-index"),
            *("--find-links", "wheels", "some-tool"),
        ),
        {"wheels/": "", "tmp/": "", "env/": ""},
        leaves=("env/bin/some-tool",),
        package="pip",
        environment={"TMPDIR": "tmp"},
        slow=True,
    ),
    Program(
        "numpy",
        "job.py",
        ("--allow-addons", "--allow-worker"),
        "native code that starts threads; with `OPENBLAS_NUM_THREADS=1` it starts none",
        ("job.py",),
        {"job.py": "import numpy\nprint(numpy.linalg.inv(numpy.eye(3)).sum())\n"},
        prints="3.0",
        package="numpy",
    ),
    Program(
        "numpy, one thread",
        "job.py",
        ("--allow-addons",),
        "`OPENBLAS_NUM_THREADS=1`",
        ("job.py",),
        {"job.py": "import numpy\nprint(numpy.linalg.inv(numpy.eye(3)).sum())\n"},
        prints="3.0",
        package="numpy",
        environment={"OPENBLAS_NUM_THREADS": "1"},
    ),
    Program(
        "pandas",
        "job.py",
        ("--allow-addons", "--allow-worker", "--allow-fs-read=in.csv", "--allow-fs-write=out.csv"),
        "as numpy, and its files",
        ("job.py",),
        {
            "job.py": "import pandas\nt = pandas.read_csv('in.csv')\nt.groupby('k').sum().to_csv('out.csv')\nprint(len(t))\n",
            "in.csv": "k,v\na,1\nb,2\na,3\n",
        },
        leaves=("out.csv",),
        package="pandas",
        slow=True,
    ),
    Program(
        "jinja2",
        "job.py",
        ("--allow-addons", "--allow-fs-read=page.html"),
        "its dependency markupsafe is compiled",
        ("job.py",),
        {
            "job.py": "import jinja2\nprint(jinja2.Template(open('page.html').read()).render(name='<you>'))\n",
            "page.html": "hello {{ name|e }}",
        },
        prints="hello &lt;you&gt;",
        package="jinja2",
    ),
    Program(
        "sqlite3",
        "job.py",
        ("--allow-fs-read=data", "--allow-fs-write=data"),
        "the folder: beside the database it makes a journal, and removes it",
        ("job.py",),
        {
            "job.py": "import sqlite3\nwith sqlite3.connect('data/base') as base:\n"
            "    base.execute('create table t (a)')\n    base.execute('insert into t values (7)')\n"
            "print(base.execute('select a from t').fetchall())\n",
            "data/": "",
        },
        prints="[(7,)]",
        leaves=("data/base",),
    ),
    Program(
        "logging, rotated",
        "job.py",
        ("--allow-fs-read=logs", "--allow-fs-write=logs"),
        "the folder: the files are renamed in it",
        ("job.py",),
        {
            "job.py": "import logging, logging.handlers\n"
            "log = logging.getLogger('x')\nlog.addHandler(logging.handlers.RotatingFileHandler('logs/log', maxBytes=99, backupCount=2))\n"
            "for number in range(20): log.warning('line %d is written', number)\n",
            "logs/": "",
        },
        leaves=("logs/log", "logs/log.1", "logs/log.2"),
    ),
    Program(
        "IPython",
        "-m IPython -c 'print(6 * 7)'",
        ("--allow-addons", "--allow-worker", "--allow-fs-read=ipython", "--allow-fs-write=ipython"),
        "`IPYTHONDIR=ipython`; it keeps its history in a database, from a thread",
        ("-m", "IPython", "-c", "print(6 * 7)"),
        {"ipython/": ""},
        prints="42",
        package="IPython",
        environment={"IPYTHONDIR": "ipython"},
        slow=True,
    ),
    Program(
        "python's own prompt, on a terminal",
        "",
        (),
        "none; what a line may not do is denied, and the prompt comes back. `--allow-fs-write=~/.python_history*` (your "
        "shell expands it) keeps a history",
        test="test_terminal.py",
    ),
    Program(
        "IPython, on a terminal",
        "-m IPython",
        ("--allow-addons", "--allow-worker", "--allow-fs-read=ipython", "--allow-fs-write=ipython"),
        "as above",
        package="IPython",
        slow=True,
        test="test_terminal.py",
    ),
    Program(
        "requests",
        "job.py",
        ("--allow-net", "--allow-addons"),
        "its dependency charset_normalizer is compiled",
        package="requests",
        test="test_net.py",
    ),
    Program("httpx", "job.py", ("--allow-net",), "", package="httpx", test="test_net.py"),
    Program(
        "http.server",
        "-m http.server --directory site",
        ("--allow-net", "--allow-worker", "--allow-fs-read=site"),
        "a thread for each request",
        test="test_net.py",
    ),
    Program(
        "asyncio, server and client",
        "job.py",
        ("--allow-net",),
        "no threads, as long as it looks up no names (that is done in one)",
        test="test_net.py",
    ),
    Program(
        "tarfile, a hostile archive",
        "job.py",
        ("--allow-fs-read=in.tar,out", "--allow-fs-write=out"),
        "`..`, absolute names, links that lead out, hard links, devices: nothing arrives outside of `out`",
        test="test_hostile.py",
    ),
    Program(
        "zipfile, a hostile archive",
        "job.py",
        ("--allow-fs-read=in.zip,out", "--allow-fs-write=out"),
        "the same, unpacked by hand",
        test="test_hostile.py",
    ),
    Program(
        "pickle, a hostile payload",
        "job.py",
        ("--allow-fs-read=in.pickle",),
        "what it runs is denied",
        test="test_hostile.py",
    ),
)
BY_NAME = {row.name: row for row in PROGRAMS}


def require(package: str) -> None:
    """Skip, or fail where tests must work, if a package of the extras isn't installed."""
    if package and importlib.util.find_spec(package) is None:
        support.refuse(f"{package} (extra dev or programs)", "none for this interpreter")


def lay_out(files: dict[str, str], folder: str) -> None:
    """Make files and folders."""
    for name, text in files.items():
        path = os.path.join(folder, name)
        os.makedirs(path if name.endswith("/") else os.path.dirname(path), exist_ok=True)
        if not name.endswith("/"):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)


def grants(name: str) -> list[str]:
    """Return the options of a row as they are given on this machine."""
    return [option.replace(".venv/bin", BIN) for option in BY_NAME[name].grants]


def environment(row: Program, folder: str) -> dict[str, str | None]:
    """Return the variables of a row; a certificate file that the machine has set is not part of it."""
    known = {
        name: os.path.join(folder, value) if value in [entry.rstrip("/") for entry in row.files] else value
        for name, value in row.environment.items()
    }
    return {"HOME": os.path.join(folder, "no-home"), "SSL_CERT_FILE": None, "SSL_CERT_DIR": None, **known}
