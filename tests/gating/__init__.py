"""Networks that decide per input what to skip."""
