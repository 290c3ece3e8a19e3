"""The REST API beyond the recorded exchanges."""

from __future__ import annotations

import concurrent.futures
import gzip
import http.client
import json
import math
import socket
import time

import pytest
from lab_server import LabServer


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


def test_special_floats_are_read_and_written(models_server: LabServer) -> None:
    answer = models_server.request(
        "POST", "/v1/models/affine:predict", '{"instances": [NaN, Infinity, -Infinity, Inf, 1e-3, 2e7]}'
    )
    assert answer.status == 200
    first, *rest = answer.json["predictions"]
    assert math.isnan(first)
    assert rest[:3] == [math.inf, -math.inf, math.inf]
    assert rest[3] == pytest.approx(2.0005)
    assert "NaN, Infinity, -Infinity, Infinity, 2.0005" in answer.text
    assert "10000002.0" in answer.text, "a float32 must be written with digits enough to read it back"


def test_64_bit_integers_are_exact(models_server: LabServer) -> None:
    body = {"inputs": {"p": [[0.5, 1]], "k": [2**61 + 1]}}
    answer = models_server.request("POST", "/v1/models/two:predict", json.dumps(body))
    assert answer.json["outputs"] == {"kk": [2**62 + 2], "s": [1.5]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"instances": [1.0],}', "JSON Parse error: Missing a name for object member. at offset: 20"),
        ('{"instances": [1.0 2.0]}', "JSON Parse error: Missing a comma or ] after an array element. at offset: 19"),
        (
            '{"instances": [1.0]} x',
            "JSON Parse error: The document root must not be followed by other values. at offset: 21",
        ),
        ('{"instances": "x"}', 'JSON Value: {\n    "instances": "x"\n} Excepting \'instances\' to be an list/array'),
        ('{"instances": [16777217]}', "Cannot convert JSON value: 16777217 to float without loss of precision."),
        ('{"instances": [[1.0, [2.0]]]}', "Encountered list at unexpected level: 1 expected < 1"),
        ('{"signature_name": 1, "instances": [1]}', "'signature_name' key must be a string value."),
        ('{"inputs": {"z": [1.0]}}', "Missing named input: x in 'inputs' object."),
    ],
)
def test_bad_predict_request_is_explained(models_server: LabServer, body: str, message: str) -> None:
    answer = models_server.request("POST", "/v1/models/affine:predict", body)
    assert answer.status == 400
    assert message in answer.json["error"]


def test_version_too_big_for_64_bits_has_an_empty_answer(models_server: LabServer) -> None:
    answer = models_server.request("GET", f"/v1/models/affine/versions/{2**63}")
    assert (answer.status, answer.text) == (400, "")


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
