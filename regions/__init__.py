"""Regional and multi-region Raft groups: the pure core, storage, the state machine and the host."""
