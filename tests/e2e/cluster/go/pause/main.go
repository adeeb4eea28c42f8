// The process that holds a pod's namespaces open until it is told to end. In a pod whose containers
// share process ids it is process 1, so it also collects the orphans' exit codes.
package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func main() {
	ended, orphaned := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGINT, unix.SIGTERM)
	signal.Notify(orphaned, unix.SIGCHLD)
	for {
		select {
		case <-ended:
			return
		case <-orphaned:
			collect()
		}
	}
}

func collect() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return
		}
	}
}
