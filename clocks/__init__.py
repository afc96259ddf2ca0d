"""Clocks: the hybrid logical clock that stamps log entries."""
