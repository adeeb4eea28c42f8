"""Real Kubernetes clusters for tests, on this machine, of programs built from source.

    ApiServer   etcd and kube-apiserver (on request controllers and scheduler) on loopback ports;
                starts in four seconds, needs no root, runs no pods
    Cluster     all of it with kubelet, containerd, kube-proxy, DNS and volumes, in namespaces and
                a network of its own; needs root on Linux, runs pods; several side by side

Both end with the process that started them, however it ends. `README.md` beside this file says what
they can and cannot do.
"""
