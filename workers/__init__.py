"""What picks executions up and sends them: the only code that imports arq."""
