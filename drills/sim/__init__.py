"""The simulated world: production hosts, state machines and clients in virtual time, from one seed."""
