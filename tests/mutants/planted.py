"""Every planted fault. A protocol that comes later adds its own list."""

from host_mutants import HOST_MUTANTS, STATE_MUTANTS, STORE_MUTANTS
from quiescence_mutants import CORE_MUTANTS, WATCH_MUTANTS
from raft_mutants import ELECTION_MUTANTS, READING_MUTANTS, REPLICATION_MUTANTS, WITNESS_MUTANTS

MUTANTS = (
    *ELECTION_MUTANTS,
    *REPLICATION_MUTANTS,
    *READING_MUTANTS,
    *WITNESS_MUTANTS,
    *HOST_MUTANTS,
    *STATE_MUTANTS,
    *STORE_MUTANTS,
    *CORE_MUTANTS,
    *WATCH_MUTANTS,
)
