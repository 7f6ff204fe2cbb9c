"""Pure token maths, no networks: schedules, corruption, loss, draw, confidence, orders, guidance, the sampler."""
