#!/bin/bash
# Tests of handler.sh; the build of the image runs them.
set -euo pipefail
cd "$(dirname "$0")"

got=$(printf 'a\nb\n' | Http_Path=/there bash handler.sh)
want=$'Hello from bash! You asked for /there.\nLines sent: 2'
if [[ $got != "$want" ]]; then
    printf 'FAIL: got\n%s\nwant\n%s\n' "$got" "$want" >&2
    exit 1
fi
echo ok
