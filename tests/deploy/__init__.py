"""deploy/ and k8s/: the very files, by the programs that read them."""
