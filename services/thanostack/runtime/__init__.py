"""A process's life: settings, supervision, probes, HTTP and gRPC servers, logs and metrics.

settings       what a flag is, how settings are read and checked
shared_flags   the flags that several containers share
command_line   splitting arguments as kingpin does
cli            the one program and its subcommands
supervisor     named tasks, signals, the orderly stop
probes         one state behind /-/healthy, /-/ready and gRPC health
http_server    uvicorn on several addresses in our loop
http_common    the pages every container has
http_heads     connections whose headers are bounded
lean_imports   libraries without the parts that nobody uses
left_out       how parts of libraries are left out
kernel_cache   compiling cold kernels before the first request
logs, metrics  one line an event; one registry a process
"""
