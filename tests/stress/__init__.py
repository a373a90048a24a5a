"""A self-checking stress run: many clients, several replicas, faults drawn from a seed; nothing lost, nothing twice."""
