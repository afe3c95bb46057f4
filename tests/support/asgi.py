"""Ask an ASGI application without a server."""

import asyncio

HOST = (b"host", b"localhost")


def make_scope(method, path, headers=(), query=b"", version="1.1"):
    """Return the connection scope of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": version,
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [HOST, *headers],
        "client": ("127.0.0.1", 40_000),
        "server": ("127.0.0.1", 8000),
    }


class Asker:
    """An event loop with an application in it, started as by a server."""

    def __init__(self, app):
        self.app, self.loop = app, asyncio.new_event_loop()
        self._orders = asyncio.Queue()
        self._alive = self.loop.create_task(app({"type": "lifespan"}, self._orders.get, _drop))
        self._orders.put_nowait({"type": "lifespan.startup"})
        self.run(asyncio.sleep(0))

    def run(self, work):
        """Run a coroutine until it ends; return its result."""
        return self.loop.run_until_complete(work)

    def ask(self, method, path, body=b"", headers=(), query=b""):
        """Return status, headers and body of the answer to one request."""
        fields = [*headers, (b"content-length", b"%d" % len(body))]
        return self.run(self.send(make_scope(method, path, fields, query), [body]))

    async def send(self, scope, parts, pause=0.0):
        """Send a request whose body comes in parts, and return its answer."""
        sent, left = [], list(parts)

        async def receive():
            if not left:
                return {"type": "http.disconnect"}
            await asyncio.sleep(pause)
            part = left.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(left)}

        async def send(message):
            sent.append(message)

        await self.app(scope, receive, send)
        if not sent:
            return None
        chunks = [message["body"] for message in sent[1:]]
        return sent[0]["status"], dict(sent[0]["headers"]), b"".join(chunks)

    def close(self):
        """Stop the application and the loop."""
        self._orders.put_nowait({"type": "lifespan.shutdown"})
        self.run(self._alive)
        self.loop.close()


async def _drop(message):
    pass
