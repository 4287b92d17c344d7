//go:build torch

package engine

import (
	"bytes"
	"os"
	"strconv"
)

// peakHost is the largest resident size of the process so far in bytes; 0 where the kernel does not tell.
func peakHost() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			fields := bytes.Fields(rest)
			if len(fields) == 2 {
				kib, _ := strconv.ParseInt(string(fields[0]), 10, 64)
				return kib << 10
			}
		}
	}
	return 0
}
