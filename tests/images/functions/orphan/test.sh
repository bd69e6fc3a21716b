#!/bin/bash
# No test, because the function only makes sense in a running container.
