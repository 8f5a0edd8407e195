"""A file server with ranges that waits before each answer and counts its bytes and its work.

aiohttp, because a server of threads would compete with what is measured for the cores.
"""

from __future__ import annotations

import asyncio
import sys
import time

from aiohttp import web


def main(folder: str, latency: float) -> None:
    sent = 0

    async def count(_: web.Request) -> web.Response:
        nonlocal sent
        counted, sent = sent, 0
        return web.json_response({"bytes": counted, "cpu_seconds": time.process_time()})

    async def file(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(latency)
        return web.FileResponse(f"{folder}/{request.match_info['name']}")

    async def add(request: web.Request, response: web.StreamResponse) -> None:
        nonlocal sent
        if request.method == "GET" and request.path != "/count":
            sent += int(response.headers["Content-Length"])

    async def start() -> None:
        app = web.Application()
        app.on_response_prepare.append(add)
        app.router.add_get("/count", count)
        app.router.add_get("/{name}", file)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print("http://{}:{}".format(*runner.addresses[0][:2]), flush=True)
        await asyncio.Event().wait()

    asyncio.run(start())


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
