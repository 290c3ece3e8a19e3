"""What the server imports to serve, for the process that the tests' servers are forked from."""

from __future__ import annotations

from model_server.__main__ import leave_out_the_python_api

leave_out_the_python_api()

from model_server import server  # noqa: E402, F401
