"""The exceptions: what they are, what they say, and how they travel."""

from __future__ import annotations

import copy
import errno
import pickle
import traceback

import pytest

import sandboxed_python
from sandboxed_python import errors
from sandboxed_python.errors import AccessDeniedError, KernelError, SandboxError
from sandboxed_python.policy.table import PERMISSIONS


@pytest.mark.parametrize(
    "name",
    ["UsageError", "MissingOptionError", "PolicyFileError", "PolicyError", "UnsupportedError", "LaunchError"],
)
def test_supervisor_errors_have_one_base(name: str) -> None:
    cls = getattr(errors, name)
    assert issubclass(cls, SandboxError)
    assert not issubclass(cls, OSError)
    assert str(cls("what and why")) == "what and why"


def test_every_exception_says_what_it_is() -> None:
    classes = [thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, Exception)]
    assert len(classes) == 9
    assert all(cls.__doc__ for cls in classes)


def test_missing_option_has_nodes_code() -> None:
    assert errors.MissingOptionError.code == "ERR_MISSING_OPTION"


def test_kernel_error_names_call_and_arguments() -> None:
    error = KernelError(errno.EINVAL, "prctl", "38, 2")
    assert isinstance(error, OSError)
    assert not isinstance(error, SandboxError)
    assert (error.call, error.errno) == ("prctl", errno.EINVAL)
    assert error.strerror == "prctl(38, 2): Invalid argument"
    assert str(error) == "[Errno 22] prctl(38, 2): Invalid argument"


@pytest.mark.parametrize("row", PERMISSIONS, ids=lambda row: row.scope)
def test_denial_words_nodes_message(row: object) -> None:
    from sandboxed_python.policy.table import Permission

    assert isinstance(row, Permission)
    error = AccessDeniedError(row.name, "../some thing", row.flag)
    text = f"Access to this API has been restricted. Use {row.flag} to manage permissions."
    assert str(error) == text
    assert (error.code, error.permission, error.resource) == ("ERR_ACCESS_DENIED", row.name, "../some thing")
    assert error.errno == errno.EACCES
    assert error.strerror == text
    assert error.filename == ("../some thing" if row.name.startswith("FileSystem") else None)


def test_denial_without_a_flag() -> None:
    error = AccessDeniedError()
    assert str(error) == "Access to this API has been restricted."
    assert (error.permission, error.resource, error.flag, error.filename) == ("", "", "", None)
    assert AccessDeniedError("FileSystem", "").filename is None


def test_denial_is_caught_as_what_the_kernel_would_have_raised() -> None:
    for cls in (AccessDeniedError, PermissionError, OSError):
        with pytest.raises(cls):
            raise AccessDeniedError("Net", "example.com", "--allow-net")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_denial_survives_pickling(protocol: int) -> None:
    error = AccessDeniedError("FileSystemRead", "/etc/\udcff", "--allow-fs-read")
    for twin in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is AccessDeniedError
        assert str(twin) == str(error)
        assert (twin.permission, twin.resource, twin.flag) == (error.permission, error.resource, error.flag)
        assert (twin.errno, twin.filename) == (error.errno, error.filename)


def test_denial_shows_its_public_name() -> None:
    assert sandboxed_python.AccessDeniedError is AccessDeniedError
    line = traceback.format_exception_only(AccessDeniedError, AccessDeniedError("Net", "", "--allow-net"))[-1]
    assert line.startswith("sandboxed_python.AccessDeniedError: Access to this API has been restricted.")
    # Pickles name it so, too: the module that defines it may move.
    assert b"sandboxed_python.errors" not in pickle.dumps(AccessDeniedError())


def test_public_names() -> None:
    for name in sandboxed_python.__all__:
        if name != "permission":
            assert getattr(sandboxed_python, name) is not None
    with pytest.raises(AttributeError, match="module 'sandboxed_python' has no attribute 'nothing'"):
        getattr(sandboxed_python, "nothing")  # noqa: B009 - a type checker refuses the plain form
