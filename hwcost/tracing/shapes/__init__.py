"""Output shapes, strides and dtypes of ops, without running a kernel."""
