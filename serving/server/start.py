"""Serve the model repositories on Triton, and keep it working.

    python -m serving start                              on ports 8000 (HTTP), 8001 (gRPC) and 8002 (metrics)
    python -m serving start --grpc-port 0 --http-port 0 --metrics-port 0     on free ports, which are printed
    python -m serving start --host 0.0.0.0               for other machines too
    python -m serving start --tls-cert FILE --tls-key FILE                   with gRPC over TLS
    python -m serving start --model-repository DIR       with the models of `python -m export --out DIR`
    python -m serving start --profile embedded-gpu       with the fragments of serving/profiles/embedded-gpu
    python -m serving start -- --log-verbose=1           what follows -- is passed to tritonserver

Ctrl-C or SIGTERM stops it: accepted requests finish, and then ports, processes and shared memory are freed.

It serves the version that the repository's manifest.json names. When that changes, by `python -m export --version 2` or
by `python -m export use --version 1` to go back, it switches to the new version without dropping a request.

With --tls-cert, HTTP listens on 127.0.0.1 only, because Triton's HTTP has no TLS. If you need HTTPS, put an ingress or
Envoy in front of it.

Model control, tracing, logging and shared memory need a key, and so do statistics if other machines can reach the
server. VLCLIP_ADMIN_KEY and VLCLIP_SHARED_MEMORY_KEY set the keys; by default they are random. See SECURITY.md.

Processes that die or hang are replaced: see serving/server/watch.py. From Python, use serving.server.server.Server.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from serving.errors import ServerError, SetupError
from serving.paths import REPOSITORIES
from serving.repository.profiles import profile_names
from serving.server.options import Ports, Tls
from serving.server.server import Server


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving start", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    models, ensembles = REPOSITORIES
    add("--model-repository", type=Path, default=models, metavar="DIR", help="the models (model_repository/)")
    add("--ensembles", type=Path, default=ensembles, metavar="DIR", help="the pipelines (ensembles/)")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="name or IPv4 address to listen on (%(default)s)")
    add("--grpc-port", type=int, default=8001, metavar="N", help="0 takes a free port (%(default)s)")
    add("--http-port", type=int, default=8000, metavar="N", help="(%(default)s)")
    add("--metrics-port", type=int, default=8002, metavar="N", help="(%(default)s)")
    add("--profile", metavar="NAME", help=f"{', '.join(profile_names())}, or a folder of fragments")
    add("--tls-cert", type=Path, metavar="FILE", help="certificate for gRPC (PEM); HTTP then listens on 127.0.0.1 only")
    add("--tls-key", type=Path, metavar="FILE", help="the certificate's key")
    add("--tls-client-ca", type=Path, metavar="FILE", help="accept only clients with a certificate of this authority")
    add("--threads", metavar="N", help="threads of each ONNX model; all cores by default (VLCLIP_ORT_THREADS)")
    add("--triton", metavar="PATH", help="a tritonserver, or the folder of its wheel (VLCLIP_TRITON)")
    add("--log", type=Path, metavar="FILE", help="append Triton's log to this file")
    add("--verbose", action="store_true", help="repeat Triton's log on stderr")
    add("options", nargs="*", metavar="-- OPTION", help="options for tritonserver")
    arguments = parser.parse_args()
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        parser.error("--tls-cert and --tls-key need each other")
    if arguments.tls_client_ca and arguments.tls_cert is None:
        parser.error("--tls-client-ca needs --tls-cert and --tls-key")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    if arguments.threads:
        os.environ["VLCLIP_ORT_THREADS"] = arguments.threads
    # SIGTERM acts like Ctrl-C. Ctrl-C must work even if the shell ignores it, as it does for background jobs.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    tls = Tls(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca) if arguments.tls_cert else None
    begin = time.monotonic()
    try:
        with Server.start(
            [arguments.model_repository, arguments.ensembles],
            host=arguments.host,
            ports=Ports(arguments.grpc_port, arguments.http_port, arguments.metrics_port),
            tls=tls,
            triton=arguments.triton,
            profile=arguments.profile,
            options=arguments.options,
            log=arguments.log,
            echo=arguments.verbose,
        ) as server:
            print(
                f"Serving {', '.join(server.pipelines)} after {time.monotonic() - begin:.1f} s\n"
                f"  gRPC     {server.grpc_url}{' (TLS)' if tls else ''}\n"
                f"  HTTP     {server.http_url}\n"
                f"  metrics  {server.metrics_url}\n"
                "Ctrl-C stops.",
                flush=True,
            )
            server.wait()
    except KeyboardInterrupt:
        print("Stopped.")
    except (SetupError, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
