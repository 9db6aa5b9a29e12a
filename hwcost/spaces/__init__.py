"""Search spaces: decisions, the sites they decide, and the blocks that stand there."""
