"""A worker: takes work from Redis, runs it in a sandbox, reports on a stream."""
