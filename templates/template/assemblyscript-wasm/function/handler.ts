import { Request, Response } from "../faas";

// The function. An exception is logged, and the response is status 500.
export function handle(request: Request): Response {
  if (request.path != "/" && request.path != "") {
    return Response.text("nothing is at " + request.path + "\n", 404);
  }
  const size = request.body.byteLength.toString();
  return Response.text("Hello from AssemblyScript! You sent " + size + " bytes.\n");
}
