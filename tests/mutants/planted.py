"""Every planted fault. A protocol that comes later adds its own list."""

from change_mutants import MEMBERSHIP_MUTANTS, TRANSFER_MUTANTS
from client_mutants import CLIENT_MUTANTS
from coordination_mutants import COORDINATION_MUTANTS
from etcd_mutants import ETCD_MUTANTS
from host_mutants import HOST_MUTANTS, STATE_MUTANTS, STORE_MUTANTS
from http2_mutants import HTTP2_MUTANTS
from lease_mutants import HAND_BACK_MUTANTS, LEASE_MUTANTS
from measure_mutants import MEASURE_MUTANTS
from quiescence_mutants import CORE_MUTANTS, WATCH_MUTANTS
from raft_mutants import ELECTION_MUTANTS, READING_MUTANTS, REPLICATION_MUTANTS, WITNESS_MUTANTS
from recipe_mutants import RECIPE_MUTANTS
from service_mutants import SERVICE_MUTANTS
from snapshot_mutants import SNAPSHOT_MUTANTS
from topology_mutants import COPY_MUTANTS

MUTANTS = (
    *ELECTION_MUTANTS,
    *REPLICATION_MUTANTS,
    *READING_MUTANTS,
    *WITNESS_MUTANTS,
    *LEASE_MUTANTS,
    *HAND_BACK_MUTANTS,
    *TRANSFER_MUTANTS,
    *MEMBERSHIP_MUTANTS,
    *CORE_MUTANTS,
    *WATCH_MUTANTS,
    *HOST_MUTANTS,
    *STATE_MUTANTS,
    *STORE_MUTANTS,
    *SERVICE_MUTANTS,
    *COORDINATION_MUTANTS,
    *SNAPSHOT_MUTANTS,
    *COPY_MUTANTS,
    *HTTP2_MUTANTS,
    *ETCD_MUTANTS,
    *MEASURE_MUTANTS,
    *CLIENT_MUTANTS,
    *RECIPE_MUTANTS,
)
