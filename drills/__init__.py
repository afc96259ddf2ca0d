"""Failure drills: faults, workloads, checkers, the runner and its reports."""
