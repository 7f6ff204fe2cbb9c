"""What learns: modules with their steps, optimiser, packs, guards, and what a run starts from."""
