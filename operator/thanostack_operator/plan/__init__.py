"""What a stack asks for and what was observed → what to do now, what waits and why, status.

    planner   joins all that follows
    checks    why nothing is done: what is wrong, in words
    published the hashrings as they stand          ring      who is in each of them next
    scaling   replicas of each ring                drains    whether an ingestor may go
    workload  how each component is                rollout   which one may change its pods
    changes   what to apply and to prune           comparison  whether live is as desired
    additions what others added to objects
    volumes   what each ring's volumes are      growth    how they become larger
    capacity  what they have of what was asked for
    deletion  what a stack does before it goes     singleton which compactor may run
    status    the whole status                     conditions  of it, and events that tell of flips
    skew      whether the image's version fits this operator
    times     timers that outlive the operator
    preview   what would happen                    model     a cluster in memory to try it on

Pure: no clock, no network, no client. Multi-step work is recomputed from what is observed each
time; what cannot be seen in the cluster is in `status.transitions`.
"""
