"""The replicated state machine: deterministic, pure; everything is decided at apply."""
