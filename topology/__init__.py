"""Topology files: regions, zones, links and keyspaces; derived replicas and predicted latencies."""
