#!/bin/bash
# Leaves an orphaned process behind, and prints its process ID.
(
    sleep 600 >/dev/null 2>&1 </dev/null &
    echo "$!"
)
