"""The rows of the benchmark, one module each, with a function ``run(context)``."""

ROWS = ("burst", "lateness", "memory", "replace", "scale", "idle", "workers", "sealing", "fleet", "units")
