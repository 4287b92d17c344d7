package sysmetrics

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// machine is a /proc with the given counters.
func machine(t *testing.T, proc, stat, dev string) {
	t.Helper()
	for name, text := range map[string]string{
		"stat": stat, "net/dev": "Inter-|   Receive\n face |bytes    packets errs drop fifo frame compressed multicast|bytes\n" + dev,
		"meminfo": "MemTotal:       1000000 kB\nMemFree: 1 kB\nMemAvailable:    250000 kB\n",
	} {
		path := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nvidia-smi")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSample(t *testing.T) {
	proc := t.TempDir()
	machine(t, proc, "cpu 100 0 100 700 100 0 0 0 50 0\ncpu0 1 2 3\n", "    lo: 1000000 1 0 0 0 0 0 0 2000000 1 0 0 0 0 0 0\n")
	s := newSampler(proc, script(t, "printf '0, 97, 1000, 4000, 350.50, 700.00\\n1, [N/A], 0, 4000, [N/A], [N/A]\\n'\n"))
	s.patience = time.Minute // a busy machine may take seconds to start a script
	machine(t, proc, "cpu 130 20 110 730 110 0 0 0 50 0\n", "    lo:3000000 1 0 0 0 0 0 0 2500000 1 0 0 0 0 0 0\n  eth0: 500000 1 0 0 0 0 0 0 0 1 0 0 0 0 0 0\n")
	got := s.Sample(t.Context())
	for _, name := range []string{"system/disk_usage_megabytes", "system/disk_available_megabytes", "system/disk_usage_percentage"} {
		if v, ok := got[name]; !ok || v < 0 {
			t.Errorf("%s = %v, %v", name, v, ok)
		}
		delete(got, name)
	}
	want := map[string]float64{
		"system/cpu_utilization_percentage":    60, // 60 of 100 jiffies; idle and iowait are not busy
		"system/system_memory_usage_megabytes": 768, "system/system_memory_usage_percentage": 75,
		"system/network_receive_megabytes": 2.5, "system/network_transmit_megabytes": 0.5,
		"system/gpu_0_utilization_percentage": 97, "system/gpu_0_memory_usage_megabytes": 1048.576, "system/gpu_0_memory_usage_percentage": 25,
		"system/gpu_0_power_usage_watts": 350.5, "system/gpu_0_power_usage_percentage": 50.0714285714,
		"system/gpu_1_memory_usage_megabytes": 0, "system/gpu_1_memory_usage_percentage": 0,
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateApprox(1e-9, 0)); diff != "" {
		t.Errorf("sample (-want +got):\n%s", diff)
	}
}

// What cannot be read is left out, and is no error.
func TestSampleWithoutSources(t *testing.T) {
	for name, smi := range map[string]string{"none": "", "fails": script(t, "exit 9\n"), "speaks otherwise": script(t, "echo no devices were found\n")} {
		t.Run(name, func(t *testing.T) {
			for key := range newSampler(t.TempDir(), smi).Sample(t.Context()) {
				if key[:12] != "system/disk_" {
					t.Errorf("found %s in an empty machine", key)
				}
			}
		})
	}
}

// TestThisMachine reads the machine the test runs on.
func TestThisMachine(t *testing.T) {
	s := New()
	began := time.Now()
	got := s.Sample(t.Context())
	t.Logf("in %s: %v", time.Since(began), got)
	used, ok := got["system/system_memory_usage_percentage"]
	if !ok || used <= 0 || used > 100 {
		t.Errorf("memory in use is %v %%", used)
	}
	for name, v := range got {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.Errorf("%s = %v", name, v)
		}
	}
}
