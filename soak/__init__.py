"""Load, soak and benchmarks: they know the server by its public wire only."""
