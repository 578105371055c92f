"""Log lines: how they are written, where they go, and the contract that states their fields."""
