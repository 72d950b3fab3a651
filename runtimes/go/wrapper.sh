#!/bin/sh
# The entry point of a sandbox: starts the shim, which speaks with the worker on
# FUNCTION_SOCKET or, without one, runs once and prints the result.
exec /app/launcher
