// Reads a configuration on standard input as kind does, and prints what kind would make of it.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"sigs.k8s.io/kind/pkg/internal/apis/config/encoding"
)

func run() error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	cluster, err := encoding.Parse(text)
	if err != nil {
		return err
	}
	if err := cluster.Validate(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(cluster)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
