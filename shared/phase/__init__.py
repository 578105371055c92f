"""The cutover's phase: a row that says where reads come from, what must be true to turn it, and its cost."""
