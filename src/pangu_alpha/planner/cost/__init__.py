"""What a plan costs on a cluster: time, memory, traffic; and the clusters, as data."""
