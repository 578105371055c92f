"""What a worker publishes of the batches that it committed: log lines, spans and metrics."""
