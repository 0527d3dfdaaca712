"""What is measured beside ours: BullMQ, arq as it comes, and a bare client. Each is a program of its own."""
