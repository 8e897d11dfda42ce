"""Where the mathematics runs: devices, contexts. Knows cells, changes none of their code."""
