//go:build torch

package torch

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/duratune/duratune/infra/libtorch"
	"github.com/duratune/duratune/internal/torch/native"
	"github.com/duratune/duratune/internal/train"
)

// Version is the libtorch release this is built against.
const Version = libtorch.Version

func initThread(cores int) error {
	if err := native.InitThread(cores); err != nil {
		return fmt.Errorf("torch: start thread: %w", err)
	}
	return nil
}

// Trim gives the memory of the tensors that were freed back to the system. The C library keeps it else, for each thread by itself, so
// that a worker would grow with every engine it has had.
func Trim() { native.Trim() }

// GPUs counts the CUDA devices of the machine. libtorch's CUDA half is loaded on the first call, so that one binary runs with
// and without it. A machine with a driver on which that fails gives train.ErrNoLibtorch and the loader's reason.
func GPUs() (int, error) { return gpus() }

var gpus = sync.OnceValues(func() (int, error) {
	n, err := native.LoadCUDA()
	if err != nil {
		return 0, fmt.Errorf("torch: load CUDA: %w: %w", err, train.ErrNoLibtorch)
	}
	return n, nil
})

// InstructionSet names what decides the bits of a CPU's results besides the number of threads: libtorch's choice of
// kernels, and the processor's model, by which MKL and oneDNN choose theirs, e.g. "AVX512 AuthenticAMD-25-17".
func InstructionSet() string {
	set := native.CPUCapability()
	if model := cpuModel(); model != "" {
		set += " " + model
	}
	return set
}

// cpuModel reads vendor, family and model of the first processor; "" where the kernel does not say.
func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	fields := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(info))
	for lines.Scan() && lines.Text() != "" {
		key, value, _ := strings.Cut(lines.Text(), ":")
		fields[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	if fields["vendor_id"] == "" {
		return ""
	}
	return fields["vendor_id"] + "-" + fields["cpu family"] + "-" + fields["model"]
}
