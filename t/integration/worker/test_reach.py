"""A whole worker, tasks and results, over every way to reach a broker that URLs can name."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from urllib.parse import urlsplit

import pytest

REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")
AMQP = os.environ.get("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process):
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.02)


@pytest.fixture
def start(tmp_path):
    """Start a server, and wait until it listens on the port."""
    processes = []

    def start(port, *command):
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tmp_path))
        wait_for_port(port, processes[-1])

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A key and a certificate for localhost that nobody but these tests trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = str(folder / "key.pem"), str(folder / "cert.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return key, certificate


@pytest.fixture
def work(new_scene):
    """``work(broker, backend, **conf)``: tasks go there, run, and their results come back."""

    def work(broker, backend, **conf):
        scene = new_scene(broker, backend)
        scene.conf.update(conf)
        first = scene.send("add", 1, 2)
        worker = scene.start(pool="threads", concurrency=1)
        assert first.get(timeout=20) == 3
        assert [scene.send("add", n, n).get(timeout=20) for n in range(5)] == [0, 2, 4, 6, 8]
        assert worker.stop() == 0
        return worker.log()

    return work


@pytest.mark.redis
def test_redis_over_tls(work, start, certificate):
    key, trusted = certificate
    port = free_port()
    tls = ["--tls-port", str(port), "--tls-key-file", key, "--tls-cert-file", trusted, "--tls-auth-clients", "no"]
    start(port, "redis-server", "--port", "0", "--save", "", *tls)
    url = f"rediss://localhost:{port}/0"
    secured = {"ssl_cert_reqs": "required", "ssl_ca_certs": trusted}
    work(url, f"{url}?ssl_cert_reqs=required&ssl_ca_certs={trusted}", broker_use_ssl=secured)


@pytest.mark.redis
def test_redis_over_a_unix_socket(work, start, tmp_path):
    port = free_port()
    path = tmp_path / "redis.sock"
    start(port, "redis-server", "--port", str(port), "--unixsocket", str(path), "--save", "")
    work(f"redis+socket://{path}", f"redis+socket://{path}")


@pytest.mark.redis
def test_redis_by_its_sentinels(work, start, tmp_path):
    port, sentinel = free_port(), free_port()
    start(port, "redis-server", "--port", str(port), "--save", "")
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {sentinel}\nsentinel monitor mymaster 127.0.0.1 {port} 1\n")
    start(sentinel, "redis-server", str(config), "--sentinel")
    url = f"sentinel://127.0.0.1:{sentinel}/0"
    options = {"master_name": "mymaster"}
    work(url, url, broker_transport_options=options, result_backend_transport_options=options)


@pytest.mark.redis
def test_the_next_broker_of_a_list_is_used_when_one_does_not_answer(work):
    closed = free_port()
    log = work(f"redis://127.0.0.1:{closed}/0;{REDIS}/13", f"{REDIS}/14")

    assert re.search(rf"Cannot connect to redis://.*127\.0\.0\.1:{closed}/0: .*refused", log)


@pytest.mark.rabbitmq
def test_rabbitmq_over_tls(work, certificate):
    """What ends TLS is a program of ours before the server, as load balancers are."""
    key, trusted = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, key)
    target = urlsplit(AMQP)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(
            target=serve, args=(server, context, (target.hostname, target.port or 5672)), daemon=True
        ).start()
        port = server.getsockname()[1]
        url = f"amqps://{target.username}:{target.password}@localhost:{port}//"
        log = work(url, f"{REDIS}/14", broker_use_ssl={"ca_certs": trusted, "cert_reqs": ssl.CERT_REQUIRED})

    assert "Connected to amqps://" in log


def serve(server, context, target):
    """Take TLS connections, and pass on what they carry."""
    while True:
        try:
            plain, _ = server.accept()
        except OSError:  # closed
            return
        try:
            inner = context.wrap_socket(plain, server_side=True)
        except OSError:
            continue
        outer = socket.create_connection(target)
        threading.Thread(target=relay, args=(inner, outer), daemon=True).start()


def relay(inner, outer):
    """Pass on both ways on one thread, for a TLS socket must not be used by two."""
    inner.setblocking(False)
    outer.setblocking(False)
    with inner, outer:
        while True:
            is_idle = True
            for source, sink in ((inner, outer), (outer, inner)):
                try:
                    data = source.recv(65536)
                except (BlockingIOError, ssl.SSLWantReadError):
                    continue
                except OSError:
                    return
                if not data:
                    return
                is_idle = False
                sink.setblocking(True)
                sink.sendall(data)
                sink.setblocking(False)
            if is_idle:
                time.sleep(0.001)
