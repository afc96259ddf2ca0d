"""The Raft core: pure, with time as an argument and durability as a type."""
