package sysmetrics

import (
	"bufio"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mega is MLflow's megabyte.
const mega = 1e6

// Sampler reads the machine's figures. It is used from one goroutine at a time.
type Sampler struct {
	proc     string        // /proc
	smi      string        // path of nvidia-smi; "" where there is none
	patience time.Duration // with nvidia-smi

	cpu            cpuTimes // at the last sample
	received, sent float64  // bytes when the sampler was made
}

// cpuTimes are jiffies of all cores since the machine started.
type cpuTimes struct{ busy, all float64 }

// New returns a sampler; utilization counts from now on.
func New() *Sampler {
	smi, err := exec.LookPath("nvidia-smi")
	if err != nil {
		smi = "" // no GPU, or none that can be asked
	}
	return newSampler("/proc", smi)
}

func newSampler(proc, smi string) *Sampler {
	s := &Sampler{proc: proc, smi: smi, patience: smiTimeout}
	s.cpu, _ = s.cpuTimes()
	s.received, s.sent, _ = s.network()
	return s
}

// Sample returns the figures by MLflow's names: percentages of utilization since the last call, bytes in megabytes,
// network traffic since [New]. What cannot be read is left out.
func (s *Sampler) Sample(ctx context.Context) map[string]float64 {
	out := map[string]float64{}
	if now, ok := s.cpuTimes(); ok {
		if all := now.all - s.cpu.all; all > 0 {
			out["system/cpu_utilization_percentage"] = 100 * (now.busy - s.cpu.busy) / all
		}
		s.cpu = now
	}
	if total, available, ok := s.memory(); ok {
		out["system/system_memory_usage_megabytes"] = (total - available) / mega
		out["system/system_memory_usage_percentage"] = 100 * (total - available) / total
	}
	if received, sent, ok := s.network(); ok {
		out["system/network_receive_megabytes"] = (received - s.received) / mega
		out["system/network_transmit_megabytes"] = (sent - s.sent) / mega
	}
	var fs unix.Statfs_t
	if unix.Statfs("/", &fs) == nil && fs.Blocks > 0 {
		used, free := float64(fs.Blocks-fs.Bfree)*float64(fs.Bsize), float64(fs.Bavail)*float64(fs.Bsize)
		out["system/disk_usage_megabytes"], out["system/disk_available_megabytes"] = used/mega, free/mega
		out["system/disk_usage_percentage"] = 100 * used / (used + free)
	}
	maps.Copy(out, s.gpus(ctx))
	return out
}

// cpuTimes reads the first line of /proc/stat: user nice system idle iowait irq softirq steal.
func (s *Sampler) cpuTimes() (t cpuTimes, ok bool) {
	for fields := range s.lines("stat") {
		if fields[0] != "cpu" || len(fields) < 9 {
			return t, false
		}
		for i, f := range fields[1:9] { // guest time is part of user time
			v := number(f)
			t.all += v
			if i != 3 && i != 4 {
				t.busy += v
			}
		}
		return t, true
	}
	return t, false
}

// memory is in bytes.
func (s *Sampler) memory() (total, available float64, ok bool) {
	for fields := range s.lines("meminfo") {
		switch {
		case len(fields) < 2:
		case fields[0] == "MemTotal:":
			total = number(fields[1]) * 1024
		case fields[0] == "MemAvailable:":
			available, ok = number(fields[1])*1024, true
		}
	}
	return total, available, ok && total > 0
}

// network sums the bytes of all interfaces, as psutil does.
func (s *Sampler) network() (received, sent float64, ok bool) {
	for fields := range s.lines(filepath.Join("net", "dev")) {
		// "eth0: 123 …" or, where the number is long, "eth0:123 …"
		name, rest, found := strings.Cut(strings.Join(fields, " "), ":")
		counters := strings.Fields(rest)
		if !found || name == "" || len(counters) < 9 {
			continue
		}
		received, sent, ok = received+number(counters[0]), sent+number(counters[8]), true
	}
	return received, sent, ok
}

// lines yields the fields of each line of a file in /proc; a file that cannot be read has none.
func (s *Sampler) lines(name string) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		f, err := os.Open(filepath.Join(s.proc, name))
		if err != nil {
			return
		}
		defer f.Close()
		for in := bufio.NewScanner(f); in.Scan(); {
			if fields := strings.Fields(in.Text()); len(fields) > 0 && !yield(fields) {
				return
			}
		}
	}
}

func number(s string) float64 {
	v, _ := strconv.ParseFloat(s, 64) // the kernel's own
	return v
}

// smiTimeout bounds nvidia-smi, which takes about 30 ms.
const smiTimeout = 3 * time.Second

// gpuQuery is what nvidia-smi is asked, in this order.
const gpuQuery = "index,utilization.gpu,memory.used,memory.total,power.draw,power.limit"

// gpus asks nvidia-smi. A figure that a card does not have ("[N/A]") is left out.
func (s *Sampler) gpus(ctx context.Context) map[string]float64 {
	out := map[string]float64{}
	if s.smi == "" {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.smi, "--query-gpu="+gpuQuery, "--format=csv,noheader,nounits")
	cmd.WaitDelay = time.Second
	text, err := cmd.Output()
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSpace(line), ", ")
		if len(fields) != 6 {
			continue
		}
		set := func(name, field string, factor float64) {
			if v, err := strconv.ParseFloat(field, 64); err == nil {
				out["system/gpu_"+fields[0]+"_"+name] = v * factor
			}
		}
		const mebi = (1 << 20) / mega // nvidia-smi counts in MiB
		set("utilization_percentage", fields[1], 1)
		set("memory_usage_megabytes", fields[2], mebi)
		set("power_usage_watts", fields[4], 1)
		if total := number(fields[3]); total > 0 {
			set("memory_usage_percentage", fields[2], 100/total)
		}
		if limit := number(fields[5]); limit > 0 {
			set("power_usage_percentage", fields[4], 100/limit)
		}
	}
	return out
}
