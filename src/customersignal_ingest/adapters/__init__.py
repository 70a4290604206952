"""Everything that touches the world: transports in, stores out. No adapter imports another."""
