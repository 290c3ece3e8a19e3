"""The canonical error codes of TensorFlow, gRPC and absl, which share their numbers, and the exception carrying one."""

from __future__ import annotations

import enum
import traceback

from . import log


class Code(enum.IntEnum):
    """Canonical status codes, numbered as in google/rpc/code.proto."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class StatusError(Exception):
    """An operation failed with a canonical code and a message; str() is `CODE_NAME: message`, as absl prints it."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


def invalid_argument(message: str) -> StatusError:
    """Return an INVALID_ARGUMENT error."""
    return StatusError(Code.INVALID_ARGUMENT, message)


def failed_precondition(message: str) -> StatusError:
    """Return a FAILED_PRECONDITION error."""
    return StatusError(Code.FAILED_PRECONDITION, message)


def not_found(message: str) -> StatusError:
    """Return a NOT_FOUND error."""
    return StatusError(Code.NOT_FOUND, message)


def of(error: Exception) -> StatusError:
    """Return a StatusError as it is; any other exception is a defect of this server, logged and INTERNAL."""
    if isinstance(error, StatusError):
        return error
    log.error("status.py", "".join(traceback.format_exception(error)).rstrip())
    return StatusError(Code.INTERNAL, f"The lab's model server failed: {error!r}")


def from_os_error(error: OSError, path: str) -> StatusError:
    """Return the status that TensorFlow's file system makes of an errno (tsl/platform/error.cc): `PATH; reason`."""
    codes = {
        FileNotFoundError: Code.NOT_FOUND,
        PermissionError: Code.PERMISSION_DENIED,
        NotADirectoryError: Code.FAILED_PRECONDITION,
        IsADirectoryError: Code.FAILED_PRECONDITION,
    }
    return StatusError(codes.get(type(error), Code.UNKNOWN), f"{path}; {error.strerror}")
