// The API for functions: one request in, one response out. Each request runs in a fresh instance.

// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "fd_read")
declare function fd_read(fd: i32, vectors: usize, count: i32, size: usize): i32;

// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "fd_write")
declare function fd_write(fd: i32, vectors: usize, count: i32, size: usize): i32;

// A pointer, a length, and the number of bytes that the call has transferred.
const vector = memory.data(8);
const moved = memory.data(4);

function readAll(): ArrayBuffer {
  let body = new ArrayBuffer(4096);
  let size = 0;
  let count = 1;
  while (count > 0) {
    if (size == body.byteLength) {
      const larger = new ArrayBuffer(2 * size);
      memory.copy(changetype<usize>(larger), changetype<usize>(body), size);
      body = larger;
    }
    store<usize>(vector, changetype<usize>(body) + size);
    store<usize>(vector, body.byteLength - size, sizeof<usize>());
    if (fd_read(0, vector, 1, moved) != 0) throw new Error("the request's body cannot be read");
    count = load<i32>(moved);
    size += count;
  }
  return body.slice(0, size);
}

function writeAll(bytes: ArrayBuffer): void {
  let at = 0;
  while (at < bytes.byteLength) {
    store<usize>(vector, changetype<usize>(bytes) + at);
    store<usize>(vector, bytes.byteLength - at, sizeof<usize>());
    if (fd_write(1, vector, 1, moved) != 0) throw new Error("the response cannot be written");
    at += load<i32>(moved);
  }
}

function variable(name: string): string {
  return process.env.has(name) ? process.env.get(name) : "";
}

// The request.
export class Request {
  readonly method: string = variable("Http_Method");
  // Percent-decoded.
  readonly path: string = variable("Http_Path");
  // As the client sent it, without the question mark.
  readonly query: string = variable("Http_Query");
  readonly body: ArrayBuffer = readAll();

  // The value of a header, or "" if the request does not have it. Names are case-insensitive.
  header(name: string): string {
    const words = name.toLowerCase().split("-");
    for (let i = 0; i < words.length; i++) {
      words[i] = words[i].charAt(0).toUpperCase() + words[i].slice(1);
    }
    return variable("Http_" + words.join("_"));
  }

  // The body as text.
  text(): string {
    return String.UTF8.decode(this.body);
  }
}

// The response.
export class Response {
  status: i32 = 200;
  readonly headers: Map<string, string> = new Map<string, string>();
  private body: ArrayBuffer = new ArrayBuffer(0);

  // A text response.
  static text(text: string, status: i32 = 200): Response {
    const response = Response.bytes(String.UTF8.encode(text), "text/plain; charset=utf-8");
    response.status = status;
    return response;
  }

  // A binary response.
  static bytes(body: ArrayBuffer, contentType: string): Response {
    const response = new Response();
    response.body = body;
    response.headers.set("Content-Type", contentType);
    return response;
  }

  // Writes the response with a CGI head (the runner's wasm_response=cgi).
  send(): void {
    let head = "Status: " + this.status.toString() + "\r\n";
    const names = this.headers.keys();
    for (let i = 0; i < names.length; i++) {
      const line = names[i] + ": " + this.headers.get(names[i]);
      for (let at = 0; at < line.length; at++) {
        const code = line.charCodeAt(at);
        // A control character could start another header.
        if ((code < 32 && code != 9) || code == 127) throw new Error("a control character in a header");
      }
      head += line + "\r\n";
    }
    writeAll(String.UTF8.encode(head + "\r\n"));
    writeAll(this.body);
  }
}
