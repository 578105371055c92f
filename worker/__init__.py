"""The worker: the only writer of `project_collections`. Follow `relay.run_once` first."""
