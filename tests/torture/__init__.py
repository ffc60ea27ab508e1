"""Crash tests: processes of a real horde are killed at named places and at random moments, one after the other."""
