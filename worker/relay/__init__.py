"""One transaction, from the outbox to `project_collections`. Begin with `run.run_once`."""
