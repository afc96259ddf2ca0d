"""Room of the CRDT services: counters, carts and sets that never wait for another region."""
