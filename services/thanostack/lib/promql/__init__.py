"""PromQL: text to tree, tree to plan, plan to vectorised evaluation over a `Queryable`.

    ast.py      the tree's nodes: the border between parser and engine
    parser/     text -> tree, with Prometheus's error texts and positions
    engine/     tree -> result: plan, slices of steps, operators, functions

It sees a `Queryable` and never a TSDB, a block or a StoreAPI.
"""
