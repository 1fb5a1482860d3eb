//! Layer 2: the shared mapping: segment, liveness, reader slots, gate, writer queue.
