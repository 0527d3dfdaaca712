"""What can be measured: every metric by name, and the figures of one process. Pure: no I/O."""
