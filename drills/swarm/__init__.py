"""Many simulated runs at once: worker processes, what their results add up to, and cases made smaller."""
