#!/bin/bash
# The function: standard input is the request's body, standard output the response. Method, path,
# query and headers are in Http_Method, Http_Path, Http_Query, Http_Content_Type and so on. Text of
# clients is data: quote it, and never evaluate it.
set -euo pipefail

echo "Hello from bash! You asked for ${Http_Path:-/}."
echo "Lines sent: $(wc -l)"
