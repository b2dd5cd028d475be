"""Who gets what: leases, the actor that keeps them for all drivers of a cluster, and demand for nodes to be started."""
