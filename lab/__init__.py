"""Real processes on this machine, for the benchmark and the chaos suite."""
