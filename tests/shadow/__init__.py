"""Lists compared from both sides: no false mismatch, no user who notices, and a way back."""
