"""Composition: what one node runs, its process entry, Ray actors and their supervisor."""
