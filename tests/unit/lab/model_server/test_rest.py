"""The REST API beyond the recorded exchanges."""

from __future__ import annotations

import concurrent.futures
import gzip
import http.client
import json
import math
import socket
import time
from urllib.parse import quote

import pytest
from conftest import LABELS
from lab_server import LabServer, free_ports
from model_server import http_server, rest_api


def test_answers_have_no_cors_headers_by_default(models_server: LabServer) -> None:
    answer = models_server.request("GET", "/v1/models/affine")
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_connection_is_kept_open_between_requests(models_server: LabServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", models_server.rest_port, timeout=10)
    connection.request("GET", "/v1/models/affine")
    assert connection.getresponse().read()
    first = connection.sock
    connection.request("POST", "/v1/models/affine:predict", '{"instances": [1.0]}')
    assert json.loads(connection.getresponse().read()) == {"predictions": [2.5]}
    assert connection.sock is first
    connection.close()


def test_long_request_does_not_hold_up_others(models_server: LabServer) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        in_flight = pool.submit(models_server.predict, "slow", 1500)
        time.sleep(0.2)
        assert models_server.states("slow") == {"1": "AVAILABLE"}
        assert not in_flight.done()
        assert in_flight.result(30).status == 200


def test_rest_listens_on_ipv6_as_well(models_server: LabServer) -> None:
    with socket.create_connection(("::1", models_server.rest_port), timeout=5) as sock:
        sock.sendall(b"GET /v1/models/affine HTTP/1.0\r\n\r\n")
        assert sock.recv(15) == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("path", ["/", "/v2/models/affine", "/monitoring/prometheus/metrics", "/metrics/"])
def test_other_paths_are_a_404_page(models_server: LabServer, path: str) -> None:
    answer = models_server.request("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (404, "text/html")
    assert "<TITLE>404 Not Found</TITLE>" in answer.text


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (gzip.compress(b'{"instances": [1.0]}'), {"Content-Encoding": "gzip"}),
        (b'14\r\n{"instances": [1.0]}\r\n0\r\n\r\n', {"Transfer-Encoding": "chunked"}),
    ],
    ids=["gzip", "chunked"],
)
def test_request_bodies_may_be_packed_or_chunked(
    models_server: LabServer, body: bytes, headers: dict[str, str]
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", models_server.rest_port, timeout=10)
    connection.putrequest("POST", "/v1/models/affine:predict")
    for name, value in headers.items():
        connection.putheader(name, value)
    if "Transfer-Encoding" not in headers:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    assert json.loads(connection.getresponse().read()) == {"predictions": [2.5]}
    connection.close()


def test_packed_body_that_is_none_counts_as_empty(models_server: LabServer) -> None:
    headers = {"Content-Encoding": "gzip"}
    answer = models_server.request("POST", "/v1/models/affine:predict", b"notgzip", **headers)
    assert (answer.status, answer.json) == (400, {"error": "JSON Parse error: The document is empty"})


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        (b"TRACE /v1/models/affine", b"", 501),
        (b"FOO /v1/models/affine", b"", 501),
        (b"POST /v1/models/affine:predict", b"Content-Length: -1\r\n", 400),
        ("GET /v1/models/é".encode(), b"", 400),
        (b"GET /v1/models/a%zz", b"", 400),
    ],
)
def test_what_the_http_library_refuses_gets_a_page_and_ends_the_connection(
    models_server: LabServer, request_line: bytes, headers: bytes, status: int
) -> None:
    with socket.create_connection(("127.0.0.1", models_server.rest_port), timeout=5) as sock:
        sock.sendall(request_line + b" HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
        answer = b"".join(iter(lambda: sock.recv(4096), b""))  # until the server closes
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Type: text/html\r\nConnection: close\r\n" in answer


def test_connection_is_closed_on_request_and_the_answer_says_so(models_server: LabServer) -> None:
    answer = models_server.request("GET", "/v1/models/affine", Connection="close")
    assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_exception_of_the_labs_own_is_a_500_that_is_counted(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_arguments: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(rest_api.model_info, "model_status", fail)
    (port,) = free_ports(1)
    assert http_server.start(rest_api.RestApi(None, 0, False), http_server.HttpOptions(port, 2, False, "/metrics"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/v1/models/defective")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["error"]) == (
        500,
        "The lab's model server failed: RuntimeError('a defect')",
    )
    connection.request("GET", "/metrics")
    counted = b':tensorflow:serving:request_count{model_name="defective",status="INTERNAL"} 1\n'
    assert counted in connection.getresponse().read()
    connection.close()
    assert 'raise RuntimeError("a defect")' in capfd.readouterr().err


def test_special_floats_are_read_and_written(models_server: LabServer) -> None:
    answer = models_server.request(
        "POST", "/v1/models/affine:predict", '{"instances": [NaN, Infinity, -Infinity, 1e-3, 2e7]}'
    )
    assert answer.status == 200
    first, *rest = answer.json["predictions"]
    assert math.isnan(first)
    assert rest[:2] == [math.inf, -math.inf]
    assert rest[2] == pytest.approx(2.0005)
    assert "NaN, Infinity, -Infinity, 2.0005" in answer.text
    assert "10000002.0" in answer.text, "a float32 must be written with digits enough to read it back"


def test_64_bit_integers_are_exact(models_server: LabServer) -> None:
    body = {"inputs": {"p": [[0.5, 1]], "k": [2**61 + 1]}}
    answer = models_server.request("POST", "/v1/models/two:predict", json.dumps(body))
    assert answer.json["outputs"] == {"kk": [2**62 + 2], "s": [1.5]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"instances": [[1.0, [2.0]]]}', "Encountered list at unexpected level: 1 expected < 1"),
        ('{"signature_name": 1, "instances": [1]}', "'signature_name' key must be a string value."),
        ('{"inputs": {"z": [1.0]}}', "Missing named input: x in 'inputs' object."),
    ],
)
def test_bad_predict_request_is_explained(models_server: LabServer, body: str, message: str) -> None:
    """The messages are from util/json_tensor.cc:419, 283 and 635 @ 9d981c5c."""
    answer = models_server.request("POST", "/v1/models/affine:predict", body)
    assert answer.status == 400
    assert message in answer.json["error"]


@pytest.mark.parametrize(
    "body", ['{"instances": [1.0],}', '{"instances": [1.0 2.0]}', '{"instances": ["\t"]}', '{"a": 1e400}']
)
def test_what_is_no_json_is_refused(models_server: LabServer, body: str) -> None:
    answer = models_server.request("POST", "/v1/models/affine:predict", body)
    assert answer.status == 400
    assert answer.json["error"].startswith("JSON Parse error: ")


def test_of_two_members_with_one_name_the_first_counts(models_server: LabServer) -> None:
    answer = models_server.request("POST", "/v1/models/affine:predict", '{"instances": [1.0], "instances": [2.0]}')
    assert answer.json == {"predictions": [2.5]}


def test_scalar_string_comes_back_as_a_scalar_beside_another_output(models_server: LabServer) -> None:
    answer = models_server.request("POST", "/v1/models/text:predict", '{"inputs": "a"}')
    assert answer.json == {"outputs": {"up_bytes": {"b64": "QQ=="}, "n": 1}}


def test_version_too_big_for_64_bits_has_an_empty_answer(models_server: LabServer) -> None:
    answer = models_server.request("GET", f"/v1/models/affine/versions/{2**63}")
    assert (answer.status, answer.text) == (400, "")


@pytest.mark.parametrize("label", LABELS)
def test_label_is_any_text_with_its_percent_escapes_decoded(models_server: LabServer, label: str) -> None:
    answer = models_server.request("GET", f"/v1/models/two/labels/{quote(label)}/metadata")
    assert answer.json["model_spec"]["version"] == "1"


@pytest.mark.parametrize("path", ["/v1/models/two/labels//metadata", "/v1/models/two/labels/a:b/metadata"])
def test_empty_label_and_one_with_a_colon_of_its_own_are_malformed(models_server: LabServer, path: str) -> None:
    answer = models_server.request("GET", path)
    assert (answer.status, answer.json) == (400, {"error": f"Malformed request: GET {path}"})


def test_model_name_in_the_path_is_unquoted(models_server: LabServer) -> None:
    assert models_server.request("GET", "/v1/models/aff%69ne").status == 200
    assert "of model a b" in models_server.request("GET", "/v1/models/a%20b").json["error"]


def test_classify_gives_label_and_score_of_each_example(models_server: LabServer) -> None:
    body = {"context": {"unused": 1}, "examples": [{"x": 0.25}, {"x": [1.0]}]}
    answer = models_server.request("POST", "/v1/models/examples:classify", json.dumps(body))
    assert answer.json == {"results": [[["low", 0.75], ["high", 0.25]], [["low", 0.0], ["high", 1.0]]]}


def test_regress_gives_a_value_for_each_example(models_server: LabServer) -> None:
    body = {"signature_name": "regress", "examples": [{"x": 0.25}, {"x": 3.5}]}
    answer = models_server.request("POST", "/v1/models/examples:regress", json.dumps(body))
    assert answer.json == {"results": [0.5, 7.0]}


def test_example_whose_feature_has_the_wrong_type_fails_in_the_model(models_server: LabServer) -> None:
    answer = models_server.request("POST", "/v1/models/examples:classify", '{"examples": [{"x": 1}]}')
    assert answer.status == 400
    assert "Data types don't match" in answer.json["error"]


def test_preflight_that_says_where_it_comes_from_succeeds(models_server: LabServer) -> None:
    answer = models_server.request("OPTIONS", "/v1/models/affine:predict", Origin="http://example.com")
    assert (answer.status, answer.text) == (200, "")
