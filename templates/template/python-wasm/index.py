"""Connects the runner and function.handler.handle: reads the request from the environment and standard
input, and writes the response to standard output with a CGI head (the runner's
wasm_response=cgi)."""

import os
import sys

sys.path[:0] = ["/", "/packages"]

from function import handler  # noqa: E402


class Event:
    """A request. `headers` has names in their usual spelling; `path` is percent-decoded."""

    def __init__(self):
        self.method = os.environ.get("Http_Method", "")
        self.path = os.environ.get("Http_Path", "")
        self.query = os.environ.get("Http_Query", "")
        self.headers = {
            name[5:].replace("_", "-"): value
            for name, value in os.environ.items()
            if name.startswith("Http_") and name not in ("Http_Method", "Http_Path", "Http_Query")
        }
        self.body = sys.stdin.buffer.read()


class Context:
    """Data that is not part of a single request."""

    hostname = "localhost"


def send(result):
    """Writes a handler's result: a dictionary with statusCode, headers and body, or only a body."""
    if not isinstance(result, dict):
        result = {"body": result}
    body = result.get("body", b"")
    headers = dict(result.get("headers") or {})
    if isinstance(body, str):
        body = body.encode()
        headers.setdefault("Content-Type", "text/plain; charset=utf-8")
    elif not isinstance(body, (bytes, bytearray)):
        import json

        body = json.dumps(body).encode()
        headers.setdefault("Content-Type", "application/json")
    headers.setdefault("Content-Type", "application/octet-stream")

    head = [f"Status: {int(result.get('statusCode', 200))}"]
    for name, value in headers.items():
        line = f"{name}: {value}"
        # A control character could start another header.
        if any(ord(c) < 32 and c != "\t" or ord(c) == 127 for c in line):
            raise ValueError(f"a control character in the header {name!r}")
        head.append(line)
    sys.stdout.buffer.write(("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()


send(handler.handle(Event(), Context()))
