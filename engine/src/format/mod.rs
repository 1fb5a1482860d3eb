//! Layer 1: every byte that outlives a process; pure, no I/O.
