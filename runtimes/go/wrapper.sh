#!/bin/sh
# The entry point of a sandbox: starts the shim, which speaks with the worker on
# FUNCTION_SOCKET or, without one, runs once and prints the result.
[ -z "$FUNCTION_OUTPUT" ] || exec >"$FUNCTION_OUTPUT/out" 2>"$FUNCTION_OUTPUT/err"
exec /app/launcher
