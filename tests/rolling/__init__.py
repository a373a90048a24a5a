"""Rolling restarts: replicas behind a load balancer come and go under hundreds of clients."""
