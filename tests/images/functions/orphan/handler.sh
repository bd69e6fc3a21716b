#!/bin/bash
# Leaves a process behind whose parent is gone, and tells its number.
(
    sleep 600 >/dev/null 2>&1 </dev/null &
    echo "$!"
)
