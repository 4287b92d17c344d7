package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrMachine is wrapped by the error that lists what a machine lacks.
var ErrMachine = errors.New("this machine lacks what the set-up needs")

// checkMachine names everything that is missing on the machine, all at once, with what to do about it. It downloads and
// writes nothing but the cache folder itself.
func checkMachine(ctx context.Context, cache string, todo []item) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return fmt.Errorf("setup: make the cache folder: %w", err)
	}
	var lacks []string
	for _, check := range []func(context.Context) string{lackPlatform, lackGlibc, lackCompiler, lackArchiver, lackPython, lackNPM} {
		if lack := check(ctx); lack != "" {
			lacks = append(lacks, lack)
		}
	}
	if lack := lackDisk(cache, todo); lack != "" {
		lacks = append(lacks, lack)
	}
	if len(lacks) == 0 {
		return nil
	}
	return fmt.Errorf("setup: %w:\n  - %s\non Debian and Ubuntu: apt-get install g++ binutils python3 python3-venv npm",
		ErrMachine, strings.Join(lacks, "\n  - "))
}

func lackPlatform(context.Context) string {
	if runtime.GOOS == "linux" && runtime.GOARCH == "amd64" {
		return ""
	}
	return fmt.Sprintf("linux/amd64: this is %s/%s, for which the pinned libtorch does not exist", runtime.GOOS, runtime.GOARCH)
}

// lackGlibc looks for the C library that the wheels are built for (manylinux_2_28).
func lackGlibc(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "getconf", "GNU_LIBC_VERSION").Output()
	if err != nil || !atLeast(string(out), 2, 28) {
		return fmt.Sprintf("glibc 2.28 or newer: found %q", strings.TrimSpace(string(out)))
	}
	return ""
}

// lackCompiler looks for a g++ that knows C++17, which libtorch's headers are written in.
func lackCompiler(ctx context.Context) string {
	if _, err := exec.LookPath("gcc"); err != nil {
		return "gcc (cgo compiles with it)"
	}
	out, err := exec.CommandContext(ctx, "g++", "-dumpfullversion").Output()
	if err != nil {
		return "g++ 9 or newer (gotch is C++)"
	}
	if !atLeast(string(out), 9, 0) {
		return "g++ 9 or newer: found " + strings.TrimSpace(string(out))
	}
	return ""
}

func lackArchiver(context.Context) string {
	if _, err := exec.LookPath("ar"); err != nil {
		return "ar (package binutils; cgo packs objects with it)"
	}
	return ""
}

// lackPython looks for a Python that can make an environment with pip in it. Debian ships ensurepip apart.
func lackPython(ctx context.Context) string {
	const need = "Python 3.10 or newer with venv and pip (MLflow runs on it, pip downloads libtorch)"
	out, err := exec.CommandContext(ctx, "python3", "-c",
		"import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])").CombinedOutput()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return need + ": no python3 on PATH"
	case err != nil:
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return need + ": " + lines[len(lines)-1]
	case !atLeast(string(out), 3, 10):
		return need + ": found " + strings.TrimSpace(string(out))
	}
	return ""
}

func lackNPM(context.Context) string {
	if _, err := exec.LookPath("npm"); err != nil {
		return "npm (the data set is an npm package)"
	}
	return ""
}

// lackDisk compares the free space with the sum of what is to be installed.
func lackDisk(cache string, todo []item) string {
	var need int64
	for _, it := range todo {
		need += it.disk
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(cache, &fs); err != nil {
		return fmt.Sprintf("a cache folder that can be examined: %v", err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < need {
		return fmt.Sprintf("disk space below %s: %.1f GB are free, %.1f GB are needed", cache, float64(free)/1e9, float64(need)/1e9)
	}
	return ""
}

var versionPattern = regexp.MustCompile(`(\d+)\.(\d+)|(\d+)`)

// atLeast reports whether the first version in text is major.minor or newer.
func atLeast(text string, major, minor int) bool {
	m := versionPattern.FindStringSubmatch(text)
	if m == nil {
		return false
	}
	gotMajor, _ := strconv.Atoi(m[1] + m[3]) // one of them is empty
	gotMinor, _ := strconv.Atoi(m[2])
	return gotMajor > major || gotMajor == major && gotMinor >= minor
}

// Lock takes the lock file at path, which is made if need be; where it has to wait it calls wait once. The lock dies with
// the process.
func Lock(ctx context.Context, path string, wait func()) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("setup: open the lock: %w", err)
	}
	poll := time.NewTicker(200 * time.Millisecond)
	defer poll.Stop()
	for waited := false; ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing gives the lock back
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("setup: lock %s: %w", path, err)
		}
		if !waited {
			wait()
			waited = true
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		}
	}
}
