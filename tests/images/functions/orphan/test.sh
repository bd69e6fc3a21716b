#!/bin/bash
# None: what it does is for a running container.
