#!/bin/sh
# The entry point of a sandbox: starts the shim, which speaks with the worker on
# FUNCTION_SOCKET or, without one, runs once and prints the result.

# V8 collects garbage by the heap's limit, not the container's: given too much it
# is killed for what it need not have kept, given the default (half) it gives up
# while a quarter of the memory is free.
for file in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
  limit=$(cat "$file" 2>/dev/null) || continue
  [ "$limit" = max ] || heap=$((limit / 1048576 * 3 / 4))
  break
done
# Beyond 16 GiB there is no limit that was meant.
if [ "${heap:-16385}" -le 16384 ]; then
  export NODE_OPTIONS="--max-old-space-size=$heap${NODE_OPTIONS:+ $NODE_OPTIONS}"
fi
[ -z "$FUNCTION_OUTPUT" ] || exec >"$FUNCTION_OUTPUT/out" 2>"$FUNCTION_OUTPUT/err"
exec node /app/shim.js
