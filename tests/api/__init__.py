"""Tests of the API, against real services."""
