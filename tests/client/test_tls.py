"""TLS: which servers and which clients are trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

import vlclip
from tests.client.conftest import FakeTriton
from tests.client.twins import Twin, first_column

CERTIFICATE = b"-----BEGIN CERTIFICATE-----\n"
KEY = b"-----BEGIN EC PRIVATE KEY-----\ns3cret"


@dataclass
class Encrypted:
    triton: FakeTriton
    ca: trustme.CA
    address: str

    def pem(self) -> bytes:
        return self.ca.cert_pem.bytes()


@pytest.fixture(scope="module")
def encrypted() -> Iterator[Encrypted]:
    ca = trustme.CA()
    certificate = ca.issue_cert("localhost", "vlclip.shop")
    pair = [(certificate.private_key_pem.bytes(), b"".join(c.bytes() for c in certificate.cert_chain_pems))]
    triton = FakeTriton(grpc.ssl_server_credentials(pair))
    yield Encrypted(triton, ca, f"localhost:{triton.encrypted_port}")
    triton.stop()


def embed(twin: Twin, address: str | list[str], tls: bool | vlclip.TLS) -> list[float]:
    """One try, so that the error is that of the first connection."""
    with twin(address, tls=tls, retry=None) as client:
        return first_column(client.embed_texts("7"))


def test_a_trusted_server(encrypted: Encrypted, twin: Twin, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(encrypted.pem())
    for ca in (encrypted.pem(), file, str(file)):
        assert embed(twin, encrypted.address, vlclip.TLS(ca=ca)) == [7]


@pytest.mark.parametrize(
    "tls", [vlclip.TLS(ca=trustme.CA().cert_pem.bytes()), True], ids=["another authority", "system"]
)
def test_a_server_that_is_not_trusted(encrypted: Encrypted, twin: Twin, tls: bool | vlclip.TLS) -> None:
    with pytest.raises(vlclip.UnavailableError, match=r"certificate.*`ca`") as caught:
        embed(twin, encrypted.address, tls)
    assert "make serve" not in str(caught.value)


def test_a_certificate_for_another_name(encrypted: Encrypted, twin: Twin) -> None:
    address = encrypted.address.replace("localhost", "127.0.0.1")
    with pytest.raises(vlclip.UnavailableError, match="`server_name`"):
        embed(twin, address, vlclip.TLS(ca=encrypted.pem()))
    for name in ("localhost", "vlclip.shop"):
        assert embed(twin, address, vlclip.TLS(ca=encrypted.pem(), server_name=name)) == [7]


def test_several_addresses_share_a_name(encrypted: Encrypted, twin: Twin) -> None:
    with twin([encrypted.address, "localhost:1"], tls=vlclip.TLS(ca=encrypted.pem())) as client:
        assert first_column(client.embed_texts("7")) == [7]


def test_a_client_with_tls_and_a_server_without_it(encrypted: Encrypted, twin: Twin) -> None:
    with pytest.raises(vlclip.UnavailableError, match="does not use TLS"):
        embed(twin, encrypted.triton.address, tls=True)


def test_a_certificate_without_its_key() -> None:
    with pytest.raises(vlclip.InvalidInputError, match="expected both"):
        vlclip.TLS(certificate=b"x")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        vlclip.Client("localhost:1", tls=vlclip.TLS(ca="nowhere.pem"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ca": b"DER"}, 'ca: expected PEM with "-----BEGIN CERTIFICATE-----", found none'),
        (
            {"ca": vlclip.__file__},
            f'ca: expected PEM with "-----BEGIN CERTIFICATE-----", found none in "{vlclip.__file__}"',
        ),
        ({"ca": 5}, "ca: expected the path of a PEM file, or its content as bytes, got int"),
        (
            {"key": KEY.decode(), "certificate": CERTIFICATE},
            "key: expected the path of a PEM file, or its content as by",
        ),
        (
            {"key": CERTIFICATE, "certificate": CERTIFICATE},
            'key: expected PEM with "-----BEGIN PRIVATE KEY-----", found',
        ),
        ({"key": KEY, "certificate": KEY}, 'certificate: expected PEM with "-----BEGIN CERTIFICATE-----", found none'),
    ],
)
def test_a_certificate_that_is_not_one(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(vlclip.InvalidInputError) as caught:
        vlclip.Client("localhost:1", tls=vlclip.TLS(**settings))
    assert str(caught.value).startswith(message)
    assert "s3cret" not in str(caught.value)
