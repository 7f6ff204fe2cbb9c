"""How results say how they were made, in files too, and are made again from that."""
