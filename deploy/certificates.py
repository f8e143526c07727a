"""Certificates for TLS: an authority of your own, and with it a server's certificate and a client's.

    python -m deploy.certificates --out certificates --host vlclip.shop --host 10.0.0.7
    python -m deploy.serve --host 0.0.0.0 --tls-cert certificates/server.pem --tls-key certificates/server.key \\
        --tls-client-ca certificates/ca.pem

    ca.pem       clients trust it: vlclip.TLS(ca="certificates/ca.pem"); the server trusts its clients' by it
    ca.key       signs further certificates; keep it away from both
    server.pem   with the names and addresses of --host
    server.key
    client.pem   for mutual TLS: vlclip.TLS(ca=…, certificate="certificates/client.pem", key="certificates/client.key")
    client.key

For staging, tests, and a network of your own. Where there is an authority already (cert-manager, a company's), take its
certificates. Nothing that is there is written over: to renew, name another folder and start the server with it.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey
FILES = ("ca.pem", "ca.key", "server.pem", "server.key", "client.pem", "client.key")
CLOCK_SKEW = datetime.timedelta(minutes=5)


def write(out: Path, hosts: Sequence[str], days: int) -> None:
    """Write FILES into ``out``, the keys readable by their owner alone. Raises FileExistsError before anything is."""
    if there := [name for name in FILES if (out / name).exists()]:
        raise FileExistsError(f"{out} has {', '.join(there)} already: name another folder, or move them away")
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = issue("vlclip authority", ca_key.public_key(), "vlclip authority", ca_key, until, authority=True)
    put(out, "ca", ca, ca_key)
    for name, usage, names in (
        ("server", ExtendedKeyUsageOID.SERVER_AUTH, hosts),
        ("client", ExtendedKeyUsageOID.CLIENT_AUTH, []),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        put(out, name, issue(f"vlclip {name}", key.public_key(), "vlclip authority", ca_key, until, usage, names), key)


def issue(
    subject: str,
    public_key: ec.EllipticCurvePublicKey,
    issuer: str,
    issuer_key: Key,
    until: datetime.datetime,
    usage: x509.ObjectIdentifier | None = None,
    hosts: Sequence[str] = (),
    *,
    authority: bool = False,
) -> x509.Certificate:
    """A signed certificate: of an authority, or of a server with ``hosts`` or a client for ``usage``."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.now(datetime.timezone.utc) - CLOCK_SKEW)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        .add_extension(key_usage(authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([place(host) for host in hosts]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def key_usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def place(host: str) -> x509.GeneralName:
    """An IP address where it is one, else a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def put(out: Path, name: str, certificate: x509.Certificate, key: Key) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for file, content, mode in (
        (f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644),
        (f"{name}.key", pem, 0o600),
    ):
        with open(os.open(out / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            stream.write(content)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.certificates", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="the folder to write into")
    add("--host", action="append", metavar="NAME", help="a name or IP address of the server; again for more")
    add("--days", type=int, default=365, metavar="N", help="how long they are valid (%(default)s)")
    options = parser.parse_args(arguments)
    hosts = options.host or ["localhost", "127.0.0.1"]
    try:
        write(options.out, hosts, options.days)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {', '.join(FILES)}, for {', '.join(hosts)}, valid for {options.days} days")
    return 0


if __name__ == "__main__":
    sys.exit(main())
