package setup

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/duratune/duratune/infra/libtorch"
)

// WorkerNames are the worker programs, and the names of their binaries.
var WorkerNames = []string{"cpu", "gpu"}

// BuildWorkers compiles the workers of the checkout into dir, which is quick where nothing changed. The first build of
// the GPU worker compiles gotch, which takes minutes.
func BuildWorkers(ctx context.Context, p Paths, dir string, out io.Writer) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	if !exists(filepath.Join(dir, "gpu")) {
		fmt.Fprintln(out, "setup: building the workers (the first time this compiles gotch: about 3 minutes)")
	}
	for _, name := range WorkerNames {
		args := []string{"build", "-o", filepath.Join(dir, name)}
		env := []string{"CGO_ENABLED=0"} // the CPU worker is static
		if name == "gpu" {
			args, env = append(args, "-tags", "torch"), libtorch.Env(p.Libtorch)
		}
		cmd := exec.CommandContext(ctx, "go", append(args, "./workers/"+name)...)
		cmd.Dir, cmd.Env = p.Root, append(os.Environ(), env...)
		if err := runCommand(cmd); err != nil {
			return fmt.Errorf("setup: build the %s worker: %w", name, err)
		}
	}
	return nil
}
