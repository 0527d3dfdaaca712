"""What happens when things break for real: processes killed, Redis stopped, targets that misbehave."""
