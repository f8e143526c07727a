"""Encrypted connections: who is trusted, on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest
import trustme

import vlclip
from tests.client.conftest import FakeTriton
from tests.client.test_twins import first_column, twin  # noqa: F401


@dataclass
class Encrypted:
    triton: FakeTriton
    ca: trustme.CA
    address: str
    mutual_address: str

    def pem(self, authority: trustme.CA | None = None) -> bytes:
        return (authority or self.ca).cert_pem.bytes()


@pytest.fixture(scope="module")
def encrypted() -> Iterator[Encrypted]:
    ca = trustme.CA()
    certificate = ca.issue_cert("localhost", "vlclip.shop")
    pair = [(certificate.private_key_pem.bytes(), b"".join(c.bytes() for c in certificate.cert_chain_pems))]
    plain = grpc.ssl_server_credentials(pair)
    mutual = grpc.ssl_server_credentials(pair, ca.cert_pem.bytes(), require_client_auth=True)
    triton = FakeTriton(plain, mutual)
    yield Encrypted(triton, ca, *(f"localhost:{port}" for port in triton.encrypted_ports))
    triton.stop()


SOON = vlclip.Timeout(request=3, connect=0.5)


def test_a_trusted_server(encrypted, twin, tmp_path):  # noqa: F811
    file = tmp_path / "ca.pem"
    file.write_bytes(encrypted.pem())
    for ca in (encrypted.pem(), file, str(file)):
        result = twin.run(lambda c: c.embed_texts("7"), encrypted.address, tls=vlclip.TLS(ca=ca))
        assert first_column(result) == [7]


@pytest.mark.parametrize("tls", ["another authority", "the system's authorities"])
def test_a_wrong_certificate(encrypted, twin, tls):  # noqa: F811
    trust = vlclip.TLS(ca=trustme.CA().cert_pem.bytes()) if tls == "another authority" else True
    with pytest.raises(vlclip.UnavailableError, match=r"certificate.*`ca`") as caught:
        twin.run(lambda c: c.embed_texts("7"), encrypted.address, tls=trust, timeout=SOON)
    assert "make serve" not in str(caught.value)


def test_a_certificate_for_another_name(encrypted, twin):  # noqa: F811
    address = encrypted.address.replace("localhost", "127.0.0.1")
    trust = vlclip.TLS(ca=encrypted.pem())
    with pytest.raises(vlclip.UnavailableError, match="`server_name`"):
        twin.run(lambda c: c.embed_texts("7"), address, tls=trust, timeout=SOON)
    for name in ("localhost", "vlclip.shop"):
        trust = vlclip.TLS(ca=encrypted.pem(), server_name=name)
        assert first_column(twin.run(lambda c: c.embed_texts("7"), address, tls=trust)) == [7]


def test_several_addresses_share_a_name(encrypted, twin):  # noqa: F811
    result = twin.run(
        lambda c: c.embed_texts("7"), [encrypted.address, "localhost:1"], tls=vlclip.TLS(ca=encrypted.pem())
    )
    assert first_column(result) == [7]


def test_mutual_tls(encrypted, twin):  # noqa: F811
    mine = encrypted.ca.issue_cert("client.shop")
    known = vlclip.TLS(
        ca=encrypted.pem(), certificate=mine.cert_chain_pems[0].bytes(), key=mine.private_key_pem.bytes()
    )
    assert first_column(twin.run(lambda c: c.embed_texts("7"), encrypted.mutual_address, tls=known)) == [7]
    nobody = vlclip.TLS(ca=encrypted.pem())
    with pytest.raises(vlclip.UnavailableError):
        twin.run(lambda c: c.embed_texts("7"), encrypted.mutual_address, tls=nobody, timeout=SOON)


def test_a_plain_client_and_an_encrypted_server(encrypted, twin):  # noqa: F811
    with pytest.raises(vlclip.UnavailableError, match="tls=True"):
        twin.run(lambda c: c.embed_texts("7"), encrypted.address, timeout=SOON)


def test_an_encrypted_client_and_a_plain_server(encrypted, twin):  # noqa: F811
    with pytest.raises(vlclip.UnavailableError, match="does not use TLS"):
        twin.run(lambda c: c.embed_texts("7"), encrypted.triton.address, tls=True, timeout=SOON)


def test_a_certificate_without_its_key():
    with pytest.raises(vlclip.InvalidInputError, match="expected both"):
        vlclip.TLS(certificate=b"x")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        vlclip.Client("localhost:1", tls=vlclip.TLS(ca="nowhere.pem"))
