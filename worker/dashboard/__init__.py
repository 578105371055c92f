"""Consistency dashboards, drawn from log lines alone: `python -m worker.dashboard`."""
