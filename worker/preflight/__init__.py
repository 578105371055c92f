"""`python -m worker.preflight`: what will bite, named before it bites. It looks, and changes nothing."""
