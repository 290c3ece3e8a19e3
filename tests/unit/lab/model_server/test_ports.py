"""The ports: which can be shared, what becomes of one that is taken, and settings of them that are traps."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from conftest import Publisher
from lab_server import LabServer, is_open, running
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

REFUSED = "Failed to start server. Error: INVALID_ARGUMENT: Failed to BuildAndStart gRPC server\n"


@pytest.fixture(scope="module")
def served(publisher: Publisher) -> list[str]:
    """The flags that serve the model `half`."""
    publisher.publish("half", "1")
    return ["--model_name=half", f"--model_base_path={publisher.base_path('half')}"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, served: list[str]) -> Iterator[LabServer]:
    """A server that is there already when another one comes."""
    with running(tmp_path_factory.mktemp("first"), *served) as server:
        yield server.wait_until_ready()


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that a program listens on which does not share it."""
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))  # noqa: S104 - as the server itself
        taken.listen()
        yield taken.getsockname()[1]


def knows(address: str, model: str) -> bool:
    """Whether the server that answers at an address, on a connection of its own, has a model."""
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=10)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return False
    return True


def test_grpc_port_is_shared_by_two_servers_and_either_answers(
    tmp_path: Path, served: list[str], first: LabServer
) -> None:
    with running(tmp_path, "--model_name=other", served[1], f"--port={first.grpc_port}") as second:
        second.wait_until_ready()
        assert f"Running gRPC ModelServer at 0.0.0.0:{first.grpc_port} ..." in second.log()
        assert {knows(f"localhost:{first.grpc_port}", "half") for _ in range(60)} == {True, False}


def test_grpc_port_of_a_program_that_does_not_share_ends_the_start(
    tmp_path: Path, served: list[str], taken_port: int
) -> None:
    with running(tmp_path, *served, f"--port={taken_port}") as server:
        assert server.wait_for_exit() == 255
        assert server.stdout() == REFUSED
        assert "No address added out of total 1 resolved" in server.log()


def test_taken_grpc_port_is_a_segmentation_fault_with_the_health_service(
    tmp_path: Path, served: list[str], taken_port: int
) -> None:
    with running(tmp_path, *served, f"--port={taken_port}", "--enable_grpc_healthcheck_service") as server:
        assert server.wait_for_exit() == -signal.SIGSEGV
        assert server.stdout() == ""


def test_socket_path_that_cannot_be_bound_ends_the_start(tmp_path: Path, served: list[str]) -> None:
    with running(tmp_path, *served, f"--grpc_socket_path={tmp_path / 'nowhere' / 'socket'}") as server:
        assert server.wait_for_exit() == 255
        assert server.stdout() == REFUSED


def test_taken_rest_port_is_an_error_line_and_the_server_runs_on_without_rest(
    tmp_path: Path, served: list[str], first: LabServer
) -> None:
    with running(tmp_path, "--model_name=other", served[1], f"--rest_api_port={first.rest_port}") as second:
        second.wait_for_log("Failed to start HTTP Server", 60)
        assert f"[evhttp_server.cc : 234] NET_LOG: Couldn't bind to port {first.rest_port}\n" in second.log()
        failed = rf"^E0000 .* server\.cc:453\] Failed to start HTTP Server at localhost:{first.rest_port}$"
        assert re.search(failed, second.log(), re.MULTILINE)
        assert knows(f"localhost:{second.grpc_port}", "other")
        assert all(first.states("half") for _ in range(20)), "REST must not share its port"


def test_thread_pool_factory_config_file_ends_the_start_once_the_models_are_loaded(
    tmp_path: Path, served: list[str]
) -> None:
    (tmp_path / "pool.config").write_text("no text proto", encoding="utf-8")
    with running(tmp_path, *served, f"--thread_pool_factory_config_file={tmp_path / 'pool.config'}") as server:
        assert server.wait_for_exit() == 255
        assert "Successfully loaded servable version {name: half version: 1}" in server.log()


def test_one_rest_thread_accepts_and_answers_nothing(tmp_path: Path, served: list[str]) -> None:
    with running(tmp_path, *served, "--rest_api_num_threads=1") as server:
        server.wait_until_ready()
        with socket.create_connection(("127.0.0.1", server.rest_port), timeout=5) as connection:
            connection.settimeout(2.0)
            connection.sendall(b"GET /v1/models/half HTTP/1.1\r\nHost: x\r\n\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(1)
        assert knows(f"localhost:{server.grpc_port}", "half")


def waits_without_ports(server: LabServer) -> bool:
    """Whether a server is alive and has opened no port."""
    return server.process.is_alive() and not is_open(server.grpc_port) and not is_open(server.rest_port)


def test_negative_poll_interval_loads_nothing_and_opens_no_port(tmp_path: Path, served: list[str]) -> None:
    with running(tmp_path, *served, "--file_system_poll_wait_seconds=-1") as server:
        server.wait_for_log("(Re-)adding model: half", 60)
        time.sleep(3.0)
        assert waits_without_ports(server)
        assert "servable version" not in server.log()


def test_poll_interval_0_loads_once_and_never_looks_again(tmp_path: Path, publisher: Publisher) -> None:
    publisher.publish("once", "1")
    flags = ["--model_name=once", f"--model_base_path={publisher.base_path('once')}"]
    with running(tmp_path, *flags, "--file_system_poll_wait_seconds=0") as server:
        server.wait_until_ready()
        publisher.publish("once", "2", offset=2)
        time.sleep(2.5)
        assert server.states("once") == {"1": "AVAILABLE"}
