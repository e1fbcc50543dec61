"""A socket that answers, limits, refuses, and outlives whatever is sent to it."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from dexworld.serving.serve_config import ServerConfig
from dexworld.serving.socket_server import SocketServer
from dexworld_client import Client, ServerError, packed, unpacked
from serving_fixtures import Echo, malformed

TOKEN = "0123456789abcdef0123"


@pytest.fixture
def serve():
    """Starts servers of `Echo` with the given settings; gives (server, address)."""
    running = []

    def start(service=None, **settings):
        server = SocketServer(ServerConfig(port=0, **settings), service or Echo(), "echo").start()
        running.append(server)
        return server, f"127.0.0.1:{server.port}"

    yield start
    for server in running:
        server.stop()


def get(address, page, scheme="http", context=None, **headers):
    request = urllib.request.Request(f"{scheme}://{address}/{page}", headers=headers)
    with urllib.request.urlopen(request, timeout=10, context=context) as reply:
        return reply.read().decode()


def test_a_client_gets_metadata_then_answers_with_their_timing(serve):
    server, address = serve()
    with connect(f"ws://{address}", compression=None) as plain:
        assert unpacked(plain.recv()) == {"service": "echo"}
        for number in range(2):
            plain.send(packed({"x": np.arange(number)}))
            answer = unpacked(plain.recv())
            np.testing.assert_array_equal(answer["x"], np.arange(number))
            assert answer["server_timing"]["infer_ms"] > 0
            assert ("prev_total_ms" in answer["server_timing"]) == (number > 0)
    assert get(address, "healthz") == "OK\n"
    assert "dexworld" in json.loads(get(address, "version"))
    latency = json.loads(get(address, "latency"))
    assert latency["answers"] == 2
    assert 0 < latency["p50_s"] <= latency["p99_s"]
    lines = get(address, "metrics").splitlines()
    assert 'dexworld_echo_events_total{event="answers"} 2' in lines
    assert "# TYPE dexworld_echo_answer_seconds summary" in lines
    assert all(line.startswith("#") or len(line.split()) == 2 for line in lines)
    assert server.metrics.counts["sessions"] == 1


def refused(address, data):
    """What a server says of a message before it ends the session with code 1011."""
    with connect(f"ws://{address}", compression=None) as plain:
        plain.recv()
        plain.send(data)
        said = plain.recv()
        with pytest.raises(ConnectionClosed) as closed:
            plain.recv()
        assert closed.value.rcvd.code == 1011
    return said


def test_a_bad_message_is_told_ends_its_session_and_the_server_lives(serve):
    server, address = serve()
    assert "binary frame" in refused(address, "text")
    assert "can't be read" in refused(address, b"\xc1")
    assert "a map" in refused(address, packed([1]))
    assert "the robot has no arm" in refused(address, packed({"wrong": True}))
    assert "server failed: ZeroDivisionError" in refused(address, packed({"defect": True}))
    with connect(f"ws://{address}", compression=None) as plain:
        plain.recv()
        plain.send(packed({"x": 1}))
        assert unpacked(plain.recv())["x"] == 1
    assert server.metrics.counts["message_errors"] == 4
    assert server.metrics.counts["failures"] == 1


def test_a_message_that_is_too_large_ends_its_session_only(serve):
    _, address = serve(message_mb=0.01)
    with connect(f"ws://{address}", compression=None) as plain:
        plain.recv()
        plain.send(packed({"x": np.zeros(20_000, np.uint8)}))
        with pytest.raises(ConnectionClosed) as closed:
            plain.recv()
        assert closed.value.rcvd.code == 1009
    assert get(address, "healthz") == "OK\n"


def test_messages_that_come_too_fast_wait(serve):
    server, address = serve(messages_per_second=20.0)
    with Client(f"ws://{address}") as client:
        began = time.monotonic()
        for _ in range(30):  # the first twenty at once
            client.ask({})
    assert time.monotonic() - began > 0.3
    assert server.metrics.counts["slowed"] > 0


def test_sessions_beyond_the_limit_are_refused_until_one_ends(serve):
    server, address = serve(sessions=1)
    with Client(f"ws://{address}"):
        with pytest.raises(InvalidStatus, match="503"):
            connect(f"ws://{address}")
        assert get(address, "healthz") == "OK\n"
    with Client(f"ws://{address}", patience_s=5.0) as client:
        assert client.ask({"x": 2})["x"] == 2
    assert server.metrics.counts["refused_sessions"] >= 1


def test_health_answers_while_a_session_works_and_a_stop_interrupts_it(serve):
    server, address = serve()
    with connect(f"ws://{address}", compression=None) as plain:
        plain.recv()
        plain.send(packed({"work": 60.0}))
        began = time.monotonic()
        assert get(address, "healthz") == "OK\n"
        time.sleep(0.2)
        server.stop()
        assert time.monotonic() - began < 5.0
        with pytest.raises(ConnectionClosed):
            plain.recv(5.0)
    assert not server._busy


def test_an_address_that_is_taken_is_said(serve):
    server, _ = serve()
    with pytest.raises(OSError, match="in use"):
        SocketServer(ServerConfig(port=server.port), Echo(), "echo").start()


def test_another_address_needs_a_token_and_tls(tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    for host in ("0.0.0.0", "192.168.1.5", "::", "robot.example"):
        for some in ({}, {"token_file": token}):
            with pytest.raises(ValueError, match="can be reached from other machines"):
                ServerConfig(host=host, **some)
    with pytest.raises(ValueError, match="both"):
        ServerConfig(tls_key=token)
    for host in ("127.0.0.1", "::1", "localhost"):
        assert ServerConfig(host=host).local
    token.write_text("short\n")
    with pytest.raises(ValueError, match="at least 16"):
        ServerConfig(token_file=token).token()


def test_without_the_token_nothing_but_health_answers(serve, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    server, address = serve(token_file=tmp_path / "token")
    assert get(address, "healthz") == "OK\n"
    for header in ({}, {"Authorization": "Api-Key wrong"}, {"Authorization": TOKEN}):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(address, "metrics", **header)
    with pytest.raises(ServerError, match="refuses the token"):
        Client(f"ws://{address}", "wrong").ask({})
    with Client(f"ws://{address}", TOKEN) as client:
        assert client.ask({"x": 1})["x"] == 1
    assert "sessions 0" in get(address, "metrics", Authorization=f"Api-Key {TOKEN}")
    assert server.metrics.counts["refused_tokens"] == 4


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")
def test_tls_serves_wss_to_those_who_know_the_certificate(serve, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    (tmp_path / "token").write_text(TOKEN)
    files = {"token_file": tmp_path / "token", "tls_certificate": certificate, "tls_key": key}
    _, address = serve(host="127.0.0.1", **files)
    context = ssl.create_default_context(cafile=certificate)
    assert get(address, "healthz", "https", context) == "OK\n"
    with Client(f"wss://{address}", TOKEN, context) as client:
        assert client.ask({"x": 1})["x"] == 1
    with pytest.raises(ConnectionError):
        Client(f"wss://{address}", TOKEN, patience_s=0.1).ask({})


def test_five_hundred_malformed_messages_crash_and_hang_nothing(serve):
    server, address = serve()
    before = len(os.listdir("/proc/self/fd"))
    done = malformed(server.port, 500, np.random.default_rng(916_000))
    assert done["unanswered"] == 0
    assert done["refused"] + done["answered"] + done["closed"] == 500
    assert server.metrics.counts["failures"] == 0
    assert get(address, "healthz") == "OK\n"
    with Client(f"ws://{address}") as client:
        assert client.ask({"x": 1})["x"] == 1
    time.sleep(0.2)
    assert len(os.listdir("/proc/self/fd")) < before + 10
    assert threading.active_count() < 20


def test_bytes_that_are_no_http_leave_the_server_alive(serve):
    _, address = serve()
    host, port = address.split(":")
    for data in (b"\0" * 100, b"GET / HTTP/9.9\r\n\r\n", b"POST /healthz HTTP/1.1\r\n\r\n", b"A" * 100_000, b""):
        with socket.create_connection((host, int(port)), 5) as plain:
            plain.sendall(data)
    assert get(address, "healthz") == "OK\n"
