"""The gateway: serve."""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack

from search.commands.common import Add, console, store_of
from search.shop import Shop
from vlclip import Client


def add(command: Add) -> None:
    """Add the command."""
    made = command("serve", run_serve, "Start the HTTP gateway and its page.")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    made.add_argument("--port", type=int, default=8080, help="port to listen on (%(default)s)")
    made.add_argument(
        "--photo-host", action="append", default=[], metavar="HOST", help="photos may come from URLs of this host"
    )
    made.add_argument(
        "--next", metavar="ADDRESS",
        help="gRPC address of the server of the next models, for POST /v1/versions (default: --url)",
    )  # fmt: skip
    made.add_argument("--origin", action="append", default=[], help="allow pages of this origin (CORS)")
    made.add_argument("--max-body", type=int, default=64, metavar="MIB", help="largest body, in MiB (%(default)s)")
    made.add_argument("--max-requests", type=int, default=64, metavar="N", help="requests at once (%(default)s)")
    made.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds for a request (%(default)g)")


def run_serve(args: argparse.Namespace) -> int:
    """Start the gateway."""
    import uvicorn

    from search.gateway import tracing
    from search.gateway.app import create_app
    from search.gateway.guard import LOOPBACK, Settings

    keys = frozenset(key for key in os.environ.get("VLCLIP_API_KEYS", "").split(",") if key)
    if not keys and args.host not in ("127.0.0.1", "::1", "localhost"):
        raise ValueError(f"--host {args.host} is open to others: set VLCLIP_API_KEYS=key1,key2 first")
    settings = Settings(
        keys, frozenset(args.photo_host), tuple(args.origin), None if keys else LOOPBACK,
        max_bytes=args.max_body << 20, max_requests=args.max_requests, seconds=args.timeout,
    )  # fmt: skip
    tracing.configure()
    with Client(args.url, timeout=0.9 * args.timeout) as client, ExitStack() as later:
        shop = Shop(store_of(args.index), client)

        def following() -> Client:
            return later.enter_context(Client(args.next)) if args.next else client

        try:
            console.print(f"http://{args.host}:{args.port} is the shop; /docs describes the API")
            uvicorn.run(
                create_app(shop, client, settings, following), host=args.host, port=args.port, log_level="warning"
            )
        finally:
            shop.close()
    return 0
