"""Plain-Python references of the kernels, one module a kernel module, written from the formats."""
