"""The benchmark: ours and its peers side by side, on this machine, in one run (`python -m bench`)."""
