package libtorch

import (
	"context"
	"crypto/sha256"
	_ "embed" // for the plugin's source
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The plugin is built by the set-up and opened at run time, where there is a GPU. Its source's hash is part of its path and is
// compiled into it, so that a worker and its plugin are of one build.

//go:embed plugin/cudagraph.cpp
var pluginSource []byte

// PluginHash is the SHA-256 of the plugin's source, in hex.
func PluginHash() string {
	sum := sha256.Sum256(pluginSource)
	return hex.EncodeToString(sum[:])
}

// PluginPath is where the plugin lies below root.
func PluginPath(root string) string {
	return filepath.Join(root, "plugin-"+PluginHash()[:12], "libduratune_cuda.so")
}

// BuildPlugin compiles the plugin below root with g++. It needs the headers of the CUDA wheels, and no GPU.
func BuildPlugin(ctx context.Context, root string) error {
	path := PluginPath(root)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	dir := filepath.Dir(path)
	source := filepath.Join(dir, "cudagraph.cpp")
	if err := writeFile(source, pluginSource); err != nil {
		return err
	}
	torch, cuda, tmp := filepath.Join(root, "torch"), filepath.Join(root, "nvidia", "cu13"), path+".tmp"
	cmd := exec.CommandContext(ctx, "g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-w",
		`-DDURATUNE_PLUGIN_HASH="`+PluginHash()+`"`, "-I"+filepath.Join(torch, "include"),
		"-I"+filepath.Join(torch, "include", "torch", "csrc", "api", "include"), "-I"+filepath.Join(cuda, "include"), source, "-o", tmp,
		"-L"+filepath.Join(torch, "lib"), "-L"+filepath.Join(cuda, "lib"), "-lc10", "-lc10_cuda", "-ltorch_cpu", "-ltorch_cuda",
		"-l:libcudart.so.13", "-Wl,--unresolved-symbols=ignore-in-shared-libs",
		"-Wl,-rpath,$ORIGIN/../torch/lib", "-Wl,-rpath,$ORIGIN/../nvidia/cu13/lib") // where it finds NVRTC
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("libtorch: build the CUDA plugin: %w\n%s", err, out)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("libtorch: build the CUDA plugin: %w", err)
	}
	return nil
}
