"""Nothing lost: resuming, snapshots, gaps, repair of holes, outages, herds. Black-box, with real faults."""
