"""The administrators' routes, behind `ADMIN_TOKEN`."""
