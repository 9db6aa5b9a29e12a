"""torch.compile with inductor on the CPU."""
