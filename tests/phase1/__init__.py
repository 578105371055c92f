"""The script of the operators' runbook, as a process, with real workers."""
