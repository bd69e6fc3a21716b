#!/bin/bash
# The function. It reads the request's body from standard input and writes the response to standard
# output. Method, path, query and headers are in Http_Method, Http_Path, Http_Query, Http_Content_Type
# and so on. Text from clients is untrusted: quote it, and never evaluate it.
set -euo pipefail

echo "Hello from bash! You asked for ${Http_Path:-/}."
echo "Lines sent: $(wc -l)"
