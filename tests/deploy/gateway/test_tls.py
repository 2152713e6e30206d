"""Over TLS only those come in whose certificate our authority signed, and nobody holds it up."""

import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.request

import pytest

from stillscan.deploy.gateway.receiver.listener import Listener
from stillscan.deploy.gateway.settings import Tls
from tests.deploy.gateway.listening import HOST, call, connect, make_certificates, receiving
from tests.deploy.gateway.serving import serving

PATIENCE_S = 30.0  # a machine may be busy

pytestmark = [
    pytest.mark.tools,
    # pynetdicom does not close the sockets of associations that do not come about
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def ours(tmp_path_factory, tool):
    return make_certificates(tmp_path_factory.mktemp("tls") / "ours", tool("openssl"), "ours")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory, tool):
    folder = tmp_path_factory.mktemp("tls") / "foreign"
    return make_certificates(folder, tool("openssl"), "foreign")


def client(trusted, shown=None):
    context = ssl.create_default_context(cafile=str(trusted.authority))
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return context, HOST


def test_only_those_with_our_certificate_come_in(tmp_path, ours, foreign):
    tls = Tls(ours.certificate, ours.key, ours.authority)
    with receiving(tmp_path, tls=tls) as listening:
        peer = call(listening.port, tls_args=client(ours, shown=ours))
        assert peer.send_c_echo().Status == 0
        peer.release()
        for shown in (foreign, None):
            stranger = call(listening.port, tls_args=client(ours, shown))
            assert not stranger.is_established
        assert not call(listening.port).is_established  # without TLS
    assert listening.counts["associations_accepted"] == 1


def test_a_peer_that_does_not_trust_us_does_not_come_in(tmp_path, ours, foreign):
    tls = Tls(ours.certificate, ours.key)
    with receiving(tmp_path, tls=tls) as listening:
        assert call(listening.port, tls_args=client(ours)).is_established
        assert not call(listening.port, tls_args=client(foreign)).is_established


def test_a_handshake_that_stands_still_holds_nobody_up(tmp_path, ours):
    tls = Tls(ours.certificate, ours.key)
    with receiving(tmp_path, tls=tls, negotiation_s=60.0) as listening:
        silent = [connect(listening.port) for _ in range(20)]
        began = time.monotonic()
        peer = call(listening.port, tls_args=client(ours))
        assert peer.send_c_echo().Status == 0
        assert time.monotonic() - began < 30, "nobody waits for the deadline of the silent"
        peer.release()
        for connection in silent:
            connection.close()


def test_echoscu_of_dcmtk_speaks_tls_with_us(tmp_path, ours, tool):
    tls = Tls(ours.certificate, ours.key, ours.authority)
    with receiving(tmp_path, tls=tls) as listening:
        echoscu = [tool("echoscu"), "-aec", "STILLSCAN", "+tls"]
        certificates = [ours.key, ours.certificate, "+cf", ours.authority]
        subprocess.run([*echoscu, *map(str, certificates), HOST, str(listening.port)], check=True)


def test_the_web_part_speaks_tls(tmp_path, ours, foreign):
    with serving(tmp_path, tls=Tls(ours.certificate, ours.key, ours.authority)) as web:
        context, _ = client(ours, shown=ours)
        address = f"https://127.0.0.1:{web.port}/metrics"
        with urllib.request.urlopen(address, context=context, timeout=5) as answer:
            assert answer.status == 200
        for wrong in (client(ours), client(foreign, shown=foreign)):
            with pytest.raises(OSError, match=r"ssl|SSL|reset|EOF"):
                urllib.request.urlopen(address, context=wrong[0], timeout=5)
        with pytest.raises(OSError, match=r"reset|closed|refused|without response"):
            urllib.request.urlopen(f"http://127.0.0.1:{web.port}/", timeout=5)


def test_connections_that_are_reset_before_they_are_accepted_do_no_harm(ours):
    admitted = threading.Semaphore(0)
    listener = Listener(
        (HOST, 0),
        lambda so_far: 1 - len(so_far),
        lambda connection: (admitted.release(), connection.sock.close()),
        deadline_s=PATIENCE_S,
        tls=Tls(ours.certificate, ours.key),
    )
    for number in range(50):
        connection = connect(listener.port, b"x" * number)
        # closing resets the connection, and what was sent lies in the other's buffer
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    stop = threading.Event()
    serving = threading.Thread(target=listener.serve, args=(stop,))
    serving.start()
    context, name = client(ours)
    last = connect(listener.port, timeout_s=PATIENCE_S)
    with context.wrap_socket(last, server_hostname=name) as peer:
        peer.sendall(b"!")
        assert admitted.acquire(timeout=PATIENCE_S)
    assert serving.is_alive()
    stop.set()
    serving.join()
