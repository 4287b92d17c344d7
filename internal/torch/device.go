//go:build torch

package torch

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/duratune/duratune/infra/libtorch"
	"github.com/duratune/duratune/internal/torch/native"
)

// Version is the libtorch release this is built against.
const Version = libtorch.Version

func initThread(cores int) error {
	if err := native.InitThread(cores); err != nil {
		return fmt.Errorf("torch: start thread: %w", err)
	}
	return nil
}

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
