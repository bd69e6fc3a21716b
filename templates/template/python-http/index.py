"""A small HTTP server around function.handler.handle. The runner is in front of it, in http mode."""

import http.server
import json
import os
import signal
import socket
import sys
import urllib.parse

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "packages")]

from function import handler  # noqa: E402


class Event:
    """A request. `path` is percent-decoded."""

    def __init__(self, request, body):
        target = urllib.parse.urlsplit(request.path)
        self.method = request.command
        self.path = urllib.parse.unquote(target.path)
        self.query = target.query
        self.headers = dict(request.headers)
        self.body = body


class Context:
    """Data that is not part of a single request."""

    hostname = socket.gethostname()


def read_body(request):
    """Reads the body, with a Content-Length or in chunks."""
    if request.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length", 0)))
    body = bytearray()
    while size := int(request.rfile.readline().split(b";")[0], 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    while request.rfile.readline().strip():
        pass
    return bytes(body)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        try:
            result = handler.handle(Event(self, read_body(self)), Context())
            status, headers, body = self.parts(result)
        except Exception as error:
            # The runner logs the output of this process; the client does not see it.
            print(f"error: {error!r}", file=sys.stderr, flush=True)
            status, headers, body = 500, {"Content-Type": "text/plain"}, b"the function failed\n"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value).replace("\r", " ").replace("\n", " "))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @staticmethod
    def parts(result):
        """Splits a handler's result: a dictionary with statusCode, headers and body, or only a body."""
        if not isinstance(result, dict):
            result = {"body": result}
        body = result.get("body", b"")
        headers = dict(result.get("headers") or {})
        if isinstance(body, str):
            body = body.encode()
            headers.setdefault("Content-Type", "text/plain; charset=utf-8")
        elif not isinstance(body, (bytes, bytearray)):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        headers.setdefault("Content-Type", "application/octet-stream")
        return int(result.get("statusCode", 200)), headers, body

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def log_message(self, *_):
        """Logs nothing, because the runner logs each request."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    # The runner passes the signal on before it drains, so requests in flight still need responses.
    # The runner ends after the drain, and in a container this process ends with it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Server(("127.0.0.1", 5000), Handler).serve_forever()
