"""InvocationService: the records, the queue, and the workers' status stream."""
