"""Programs that serve, and that ask servers: on the loopback interface alone."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import subprocess
import threading
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.programs.catalogue import BY_NAME, environment, grants, require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import Finished, Run

ASK = "print(requests.get(url, timeout=20).text)"
CLIENTS = {
    "requests": f"import requests\n{ASK}",
    "httpx": f"import httpx\n{ASK.replace('requests', 'httpx')}",
    "httpx, asynchronous": "import asyncio, httpx\n"
    "async def main():\n"
    "    async with httpx.AsyncClient(timeout=20) as client:\n"
    "        print((await client.get(url)).text)\n"
    "asyncio.run(main())",
}
ASYNCIO = """
import asyncio

async def serve(reader, writer):
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()

async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        answers = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello\\n")
            answers.append(await reader.readline())
            writer.close()
        print(answers)

asyncio.run(main())
"""


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers every question with the same word, and prints nothing."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"answered")

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """Return the address of a server that runs outside of the sandbox."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
def test_clients(client: str, url: str, folder: str, sandbox: Run) -> None:
    name = client.partition(",")[0]
    require(name)
    options = grants(name)

    def ask(given: list[str]) -> Finished:
        source = f"url = {url!r}\n{CLIENTS[client]}"
        return sandbox(*given, "-c", source, env=environment(BY_NAME[name], folder))

    done = ask(options)
    assert (done.code, done.stdout) == (0, "answered\n"), done.said
    for option in options:
        denied = ask([other for other in options if other != option])
        assert denied.code == 1, denied.said
        assert "answered" not in denied.stdout
        # anyio, below the asynchronous client, says only that all attempts have failed.
        assert option in denied.stderr or "asynchronous" in client, denied.said


def test_asyncio(sandbox: Run) -> None:
    """Denied, ``start_server`` takes it for an address family that isn't there: a server that listens nowhere."""
    (grant,) = grants("asyncio, server and client")
    done = sandbox(grant, "-c", ASYNCIO)
    assert (done.code, done.stdout) == (0, f"{[b'HELLO' + bytes([10])] * 3}\n"), done.said
    denied = sandbox("-c", ASYNCIO)
    assert (denied.code, denied.stdout) == (1, ""), denied.said
    client = sandbox("-c", "import asyncio; asyncio.run(asyncio.open_connection('127.0.0.1', 9))")
    assert client.code == 1, client.said
    assert grant in client.stderr


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(options: list[str], folder: str) -> Iterator[str]:
    """Run ``-m http.server`` in the sandbox; give its address when it listens, or fail when it has ended instead."""
    port = free_port()
    words = ["-m", "http.server", "--bind", "127.0.0.1", "--directory", "site", str(port)]
    with subprocess.Popen(
        [*support.installed(), "--permission", *options, *words],
        cwd=folder,
        env=support.clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            for _attempt in range(100):
                if server.poll() is not None:
                    break
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
                    break
                time.sleep(0.1)
            if server.poll() is not None:
                assert server.stderr is not None
                raise ConnectionRefusedError(server.stderr.read())
            yield f"http://127.0.0.1:{port}/page.txt"
        finally:
            server.terminate()


def test_http_server(folder: str, sandbox: Run) -> None:
    """Without --allow-net it doesn't listen; without the others it listens, and serves nothing."""
    os.mkdir(os.path.join(folder, "site"))
    with open(os.path.join(folder, "site", "page.txt"), "w", encoding="utf-8") as file:
        file.write("served")
    options = grants("http.server")
    with serving(options, folder) as address, urllib.request.urlopen(address, timeout=20) as answer:
        assert answer.read() == b"served"
    for option in options:
        rest = [other for other in options if other != option]
        if option == "--allow-net":
            with pytest.raises(ConnectionRefusedError, match=option), serving(rest, folder):
                pass
            continue
        with serving(rest, folder) as address, pytest.raises(OSError), urllib.request.urlopen(address, timeout=20):
            pass
