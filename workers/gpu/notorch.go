//go:build !torch

// Command gpu is the worker for training, evaluation and the load test. This is what it is without the build tag torch:
// a sentence on how to build the real one.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "gpu worker: built without libtorch. Run `go tool task setup` once, which installs it, "+
		"then `go tool task build`, which compiles this worker with -tags torch.")
	os.Exit(2) //nolint:forbidigo // this is a main
}
