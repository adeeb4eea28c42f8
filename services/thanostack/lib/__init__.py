"""Everything Thanostack knows, with no web framework and no process life.

Read from the bottom: `foundation` and `kernels` (arrays in, arrays out), `model` (batches of
series), the storage packages, then PromQL and the StoreAPI. `import-linter` holds the order.
"""
