"""The way to Vault where Vault, or what stands in its place, misbehaves; and over real TLS."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dev.stack.certificates import Authority
from services.common.errors import (
    LeasegateError,
    VaultFailedError,
    VaultRefusedError,
    VaultSealedError,
    VaultThrottledError,
    VaultUnavailableError,
)
from services.common.rpc import deadline
from services.common.vault.transport import Endpoint, Transport, VaultUnreachedError
from services.common.vault_config.address import Address
from tests.integration.stub_vault import Reply, stub
from tests.servers import Servers


def transport(address: str, **more: object) -> Transport:
    return Transport(Endpoint(address=Address.parse(address), **more))  # type: ignore[arg-type]


def real(servers: Servers, **more: object) -> Transport:
    return transport(servers.vault_addr, **{"ca_bundle": servers.vault_ca.read_bytes(), **more})


def health(to: Transport) -> bool:
    return to.send("GET", "sys/health").data == {}


@pytest.mark.parametrize(
    ("status", "error", "retry_s"),
    [
        (400, VaultRefusedError, 15),
        (405, VaultRefusedError, 15),
        (412, VaultUnavailableError, 0.5),
        (429, VaultThrottledError, 7),
        (472, VaultUnavailableError, 2),
        (473, VaultUnavailableError, 2),
        (500, VaultFailedError, 5),
        (501, VaultFailedError, 5),
        (502, VaultUnavailableError, 2),
        (503, VaultSealedError, 5),
        (504, VaultFailedError, 5),
        (201, VaultUnavailableError, 2),
    ],
)
def test_each_status_has_its_error(status: int, error: type[LeasegateError], retry_s: float) -> None:
    body = b'{"errors": ["1 error occurred:\\n\\t* because of hunter2\\n\\n"]}'
    with stub(lambda _: Reply(status, body, {"Retry-After": "7"})) as vault:
        with pytest.raises(error) as raised:
            transport(vault.address).send("POST", "a/b", body={"password": "hunter2"}, token="s.secret")
        assert len(vault.seen) == 1
    assert type(raised.value) is error
    assert raised.value.retry_after_s == retry_s
    assert "hunter2" not in raised.value.message
    assert "s.secret" not in raised.value.message


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed_with_a_token(status: int) -> None:
    with (
        stub(lambda _: Reply()) as other,
        stub(lambda _: Reply(status, b"", {"Location": other.address + "/v1/a"})) as vault,
    ):
        for method in ("GET", "POST"):
            with pytest.raises(VaultUnavailableError, match="redirects elsewhere"):
                transport(vault.address).send(method, "a", token="s.secret")
        assert len(vault.seen) == 2
        assert other.seen == []


@pytest.mark.parametrize("body", [b"<html>a proxy says hello</html>", b"[1]", b'"text"', b"\xff\xfe"])
def test_what_is_no_answer_of_vaults_is_not_quoted(body: bytes) -> None:
    with stub(lambda _: Reply(200, body)) as vault, pytest.raises(VaultUnavailableError) as raised:
        transport(vault.address).send("GET", "a")
    assert "proxy" not in raised.value.message


def test_a_foreign_error_page_is_not_quoted() -> None:
    with (
        stub(lambda _: Reply(400, b"internal metadata of somebody else")) as vault,
        pytest.raises(VaultRefusedError) as raised,
    ):
        transport(vault.address).send("GET", "a")
    assert "metadata of" not in raised.value.message


@pytest.mark.parametrize("verb", ["renew", "revoke", "revoke-force"])
def test_a_refusal_shows_no_whole_lease_id(verb: str) -> None:
    said = b'{"errors": ["failed to revoke \\"m/creds/r/wholeid\\": ERROR: no wholeid (SQLSTATE 42704)"]}'
    with stub(lambda _: Reply(400, said)) as vault, pytest.raises(VaultRefusedError) as raised:
        transport(vault.address).send("POST", f"sys/leases/{verb}/m/creds/r/wholeid", body={})
    assert "wholeid" not in f"{raised.value.message} {raised.value.metadata} {raised.value!r}"


def test_an_answer_without_end_is_cut_off() -> None:
    with stub(lambda _: Reply(200, b"x" * (5 << 20))) as vault, pytest.raises(VaultFailedError, match="too large"):
        transport(vault.address).send("GET", "a")


def test_an_answer_that_trickles_is_late_as_one_that_never_comes() -> None:
    with trickling() as address:
        to = transport(address)
        with pytest.raises(VaultUnavailableError, match="did not answer within") as late:
            to.send("GET", "a", timeout_s=0.3)
    assert not isinstance(late.value, VaultUnreachedError)


def test_the_callers_deadline_and_the_calls_own_bound_the_wait() -> None:
    release = threading.Event()
    with stub(lambda _: Reply(held=release)) as vault:
        to = transport(vault.address)
        with pytest.raises(VaultUnavailableError, match="did not answer within") as slow:
            to.send("GET", "a", timeout_s=0.2)
        assert not isinstance(slow.value, VaultUnreachedError)
        with deadline.within(0.2), pytest.raises(VaultUnavailableError, match="did not answer within"):
            to.send("GET", "a")
        release.set()


def test_a_connection_that_breaks_off_leaves_the_outcome_open() -> None:
    with (
        stub(lambda _: Reply(200, b"{}", {"Content-Length": "100"})) as vault,
        pytest.raises(VaultUnavailableError) as broken,
    ):
        transport(vault.address).send("POST", "a", body={}, timeout_s=0.5)
    assert not isinstance(broken.value, VaultUnreachedError)


@contextmanager
def trickling() -> Iterator[str]:
    """Serve an answer of which each byte comes within any timeout, and the whole never; answers the address."""
    over = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # the client has gone
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while not over.wait(0.05):
                    self.wfile.write(b" ")

    with served(Handler) as address:
        yield address
        over.set()


WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def scripted(*answers: tuple[bytes, bool]) -> Iterator[tuple[str, list[bytes]]]:
    """Serve requests with these bytes, one after the other; answers its address and the requests it got."""
    seen: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            ends = False
            while not ends and (line := self.rfile.readline()):
                seen.append(line)
                while self.rfile.readline().strip():
                    continue
                answer, ends = answers[len(seen) - 1]
                self.wfile.write(answer)

    with served(Handler) as address:
        yield address, seen


@contextmanager
def served(handler: type[socketserver.StreamRequestHandler]) -> Iterator[str]:
    """Serve on a free port of 127.0.0.1; answers the address."""

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"SSH-2.0\r\n",
    ],
)
def test_nothing_is_sent_twice_where_an_answer_breaks_off(broken: bytes) -> None:
    with scripted((WHOLE, False), (broken, True), (WHOLE, True)) as (address, seen):
        to = transport(address)
        assert to.send("GET", "first").data == {}
        with pytest.raises(VaultUnavailableError, match="broke off") as raised:
            to.send("GET", "second")
        assert not isinstance(raised.value, VaultUnreachedError)
        assert to.send("GET", "third").data == {}  # on a new connection
    assert [line.split()[1] for line in seen] == [b"/v1/first", b"/v1/second", b"/v1/third"]


def test_where_nothing_was_sent_the_error_says_so(servers: Servers) -> None:
    for address in ("https://127.0.0.1:1", "https://no-such-host.invalid:8200"):
        with pytest.raises(VaultUnreachedError):
            transport(address).send("POST", "a", body={})


def test_the_environment_has_no_say(servers: Servers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with stub(lambda _: Reply()) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.address)
        monkeypatch.setenv("VAULT_TOKEN", "s.fromtheenvironment")
        monkeypatch.setenv("VAULT_ADDR", proxy.address)
        (tmp_path / "ca.pem").write_bytes(Authority(tmp_path / "other").ca.read_bytes())
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
            monkeypatch.setenv(name, str(tmp_path / "ca.pem"))
        assert health(real(servers))
        assert proxy.seen == []
    with stub(lambda _: Reply()) as vault:
        transport(vault.address).send("GET", "a")
        assert "X-Vault-Token" not in vault.seen[0].headers


def test_headers_and_body_are_as_vault_wants_them() -> None:
    with stub(lambda _: Reply(204, b"")) as vault:
        to = Transport(Endpoint(address=Address.parse(vault.address)), vault_namespace="org/team")
        assert to.send("POST", "m/roles/r", body={"a": 1}, token="s.t").data == {}
        seen = vault.seen[0]
    assert (seen.method, seen.path, seen.body) == ("POST", "/v1/m/roles/r", {"a": 1})
    assert (seen.headers["X-Vault-Token"], seen.headers["X-Vault-Namespace"], seen.headers["X-Vault-Request"]) == (
        "s.t",
        "org/team",
        "true",
    )


def test_one_connection_is_kept_for_many_calls(servers: Servers) -> None:
    to = real(servers)
    for _ in range(5):
        health(to)
    assert to._pool.num_connections == 1


def test_only_the_given_authority_is_trusted(servers: Servers, tmp_path: Path) -> None:
    assert health(real(servers))
    for ca in (b"", Authority(tmp_path).ca.read_bytes()):
        with pytest.raises(VaultUnreachedError, match="proves no identity that is trusted"):
            health(real(servers, ca_bundle=ca))


def test_the_name_in_the_certificate_is_checked(servers: Servers) -> None:
    assert health(real(servers, server_name="localhost"))
    assert health(real(servers, server_name="vault.demo.svc"))
    with pytest.raises(VaultUnreachedError, match="elsewhere"):
        health(real(servers, server_name="elsewhere"))


def test_unchecked_only_where_asked(servers: Servers) -> None:
    assert health(real(servers, ca_bundle=b"", insecure=True))
    assert health(real(servers, ca_bundle=b"", insecure=True, server_name="elsewhere"))


def test_a_client_certificate_leaves_no_file(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Authority(tmp_path / "authority").client("team")
    where = tmp_path / "tmp"
    where.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(where))
    for with_memfd in (True, False):
        if not with_memfd:
            monkeypatch.delattr("os.memfd_create")
        assert health(real(servers, certificate=pair.cert.read_bytes(), private_key=pair.key.read_bytes()))
        assert list(where.iterdir()) == []


def test_plain_http_talks_to_https(servers: Servers) -> None:
    with pytest.raises(LeasegateError) as raised:
        health(transport(servers.vault_addr.replace("https", "http")))
    assert raised.value.retry_after_s is not None
    with stub(lambda _: Reply()) as vault, pytest.raises(VaultUnavailableError, match="look at its scheme and port"):
        health(transport(vault.address.replace("http", "https"), insecure=True))
