"""Room of the cross-region transaction coordinator: two-phase commit with commit-wait."""
