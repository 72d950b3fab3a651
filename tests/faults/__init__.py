"""The fault matrix: faults really injected into a real stack, under load."""
