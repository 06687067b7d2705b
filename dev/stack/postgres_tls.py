"""A TLS proxy for the local PostgreSQL: ``python -m dev.stack.postgres_tls LISTEN SERVER CERT KEY``.

It answers PostgreSQL's SSLRequest and passes bytes through; it refuses plain connections, which the server accepts.
See https://www.postgresql.org/docs/18/protocol-flow.html, "SSL Session Encryption".
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from contextlib import suppress

_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
_GSS_REQUEST = bytes.fromhex("0000000804d21630")
_CHUNK = 65536
_HANDSHAKE_S = 10


async def serve(listen: str, server: str, *, context: ssl.SSLContext) -> None:
    """Accept connections until cancelled.

    Args:
        listen: ``HOST:PORT`` to accept at.
        server: ``HOST:PORT`` of PostgreSQL.
        context: The certificate to show.
    """

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(
            OSError, asyncio.IncompleteReadError, TimeoutError
        ):  # a client may close its connection at any time
            if await asyncio.wait_for(_secured(reader, writer, context=context), _HANDSHAKE_S):
                await _pass(reader, writer, server)
        writer.close()

    host, _, port = listen.rpartition(":")
    async with await asyncio.start_server(handle, host, int(port)) as running:
        await running.serve_forever()


async def _secured(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, context: ssl.SSLContext) -> bool:
    asked = await reader.readexactly(8)
    if asked == _GSS_REQUEST:
        writer.write(b"N")
        asked = await reader.readexactly(8)
    if asked != _SSL_REQUEST:
        return False
    writer.write(b"S")
    await writer.start_tls(context)
    return True


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: str) -> None:
    host, _, port = server.rpartition(":")
    from_server, to_server = await asyncio.open_connection(host, int(port))
    try:
        await asyncio.gather(_copy(reader, to_server), _copy(from_server, writer))
    finally:
        to_server.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while chunk := await source.read(_CHUNK):
            target.write(chunk)
            await target.drain()
    finally:
        target.close()  # ends the other direction, too


def main(listen: str, server: str, cert: str, key: str) -> None:
    """Serve until the process is ended."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    asyncio.run(serve(listen, server, context=context))


if __name__ == "__main__":
    main(*sys.argv[1:5])
