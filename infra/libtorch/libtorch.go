// Package libtorch knows how gotch is compiled and linked against the libtorch that Duratune pins.
//
// It is pure Go and downloads nothing: the set-up program unzips the wheels into [Root] (so that torch/ and nvidia/ lie
// side by side there), calls [Install], and builds with [Env]. The layout below the root is
//
//	torch/  nvidia/           the wheels, unzipped
//	gotch-<hash>/include/     gotch_compat.h, passed to the C++ compiler by -include
//	gotch-<hash>/shims/       empty archives for CUDA libraries which gotch names but which are loaded at run time
//
// The hash is that of the header: Go's build cache sees the flags but not the header's content, and recompiling gotch
// takes minutes, so the flags have to be the same strings in every build and to change exactly when the header does.
package libtorch

import (
	"crypto/sha256"
	_ "embed" // for the header
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Version is the libtorch release that everything here is written for.
const Version = "2.11.0"

//go:embed gotch_compat.h
var header []byte

// shims are the libraries that gotch links by name and that a machine without CUDA does not have. With --as-needed
// an empty archive satisfies the linker and leaves no trace in the binary.
var shims = []string{"cuda", "cudart", "cublas", "cudnn", "nvrtc-builtins", "nvrtc", "nvToolsExt"}

// emptyArchive is what `ar rcs` writes for no members.
const emptyArchive = "!<arch>\n"

// Root is the folder that holds libtorch: duratune/libtorch-<version> below the user's cache directory
// ($XDG_CACHE_HOME, else ~/.cache).
func Root() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("libtorch: find the cache folder: %w", err)
	}
	return filepath.Join(cache, "duratune", "libtorch-"+Version), nil
}

// Install writes the header and the shims below root. It may be called again; files are replaced as a whole.
func Install(root string) error {
	dir := compatDir(root)
	if err := writeFile(filepath.Join(dir, "include", "gotch_compat.h"), header); err != nil {
		return err
	}
	for _, name := range shims {
		if err := writeFile(filepath.Join(dir, "shims", "lib"+name+".a"), []byte(emptyArchive)); err != nil {
			return err
		}
	}
	return nil
}

// RunEnv returns the variables with which a process that computes with libtorch should run. libgomp reads them when it is
// loaded, so they cannot be set from inside. Threads that wait for each other spin for some microseconds, as libgomp itself
// has them where threads outnumber cores. By default they spin much longer, and where anything else wants the cores a step
// then takes up to a hundred times as long; where they sleep at once, Linux wakes them on the core of who wakes them, and
// two threads are no faster than one.
func RunEnv() []string { return []string{"GOMP_SPINCOUNT=1000"} }

// Env returns the variables, as "KEY=value", with which every go command that builds or tests the tag torch has to run.
func Env(root string) []string {
	dir, torch := compatDir(root), filepath.Join(root, "torch")
	libs := []string{filepath.Join(torch, "lib"), filepath.Join(root, "nvidia", "cu13", "lib")}

	cxx := []string{
		"-include", filepath.Join(dir, "include", "gotch_compat.h"),
		"-I" + filepath.Join(torch, "include"),
		"-I" + filepath.Join(torch, "include", "torch", "csrc", "api", "include"),
		"-w", // gotch's generated code calls thousands of deprecated functions
	}
	ld := []string{"-Wl,--as-needed", "-L" + filepath.Join(dir, "shims")}
	for _, lib := range libs {
		ld = append(ld, "-L"+lib, "-Wl,-rpath,"+lib, "-Wl,-rpath-link,"+lib)
	}
	return append(RunEnv(), "CGO_ENABLED=1", "CGO_CXXFLAGS="+join(cxx), "CGO_LDFLAGS="+join(ld))
}

// compatDir holds what Install writes.
func compatDir(root string) string {
	sum := sha256.Sum256(header)
	return filepath.Join(root, "gotch-"+hex.EncodeToString(sum[:])[:12])
}

// join quotes as the go command reads CGO_* variables: a field with a space stands in single quotes.
func join(fields []string) string {
	quoted := make([]string, len(fields))
	for i, f := range fields {
		quoted[i] = f
		if strings.ContainsAny(f, " \t") {
			quoted[i] = "'" + f + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// writeFile replaces path by content, by rename, so that a build that runs meanwhile never sees half a file. A file
// that is right already is left alone.
func writeFile(path string, content []byte) error {
	if have, err := os.ReadFile(path); err == nil && string(have) == string(content) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("libtorch: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("libtorch: %w", err)
	}
	defer os.Remove(tmp.Name()) // fails after the rename, as it should
	_, err = tmp.Write(content)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(tmp.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("libtorch: write %s: %w", path, err)
	}
	return nil
}
