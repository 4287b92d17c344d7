package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/duratune/duratune/internal/artifact"
)

// speed is what is printed of one direction; MB are 10^6 bytes.
type speed struct {
	Case      string  `json:"case"`
	Megabytes int     `json:"megabytes"`
	Ours      float64 `json:"ours_mb_per_second"`  // the best of all rounds, digests included
	Peer      float64 `json:"boto3_mb_per_second"` // likewise, without digests
	Ratio     float64 `json:"ratio"`
}

// boto is the other client: one transfer of a file, which prints its seconds.
const boto = `
import os, sys, time, boto3
client = boto3.client("s3")
verb, path, key = sys.argv[1:]
begin = time.perf_counter()
client.upload_file(path, "duratune", key) if verb == "put" else client.download_file("duratune", key, path)
print(time.perf_counter() - begin)
`

// s3 moves an object to the store and back, with our client and with boto3's transfer manager in turn. Ours takes the
// SHA-256 on both ways; both write a file when they read.
func (b *bench) s3(ctx context.Context, megabytes, rounds int, encode *json.Encoder) error {
	store, err := b.store(ctx, "s3://duratune/databench-s3")
	if err != nil {
		return err
	}
	file := filepath.Join(b.State, "object")
	if err := fill(file, megabytes); err != nil {
		return err
	}
	var times [4][]float64 // our put, our get, the peer's
	for range rounds {
		ref, put, err := timedPut(ctx, store, file)
		if err != nil {
			return err
		}
		begin := time.Now()
		if err := artifact.Download(ctx, store, ref, file+".got"); err != nil {
			return err
		}
		get := time.Since(begin).Seconds()
		peerPut, err := b.boto(ctx, "put", file, "databench-s3/peer")
		if err != nil {
			return err
		}
		peerGet, err := b.boto(ctx, "get", file+".peer", "databench-s3/peer")
		if err != nil {
			return err
		}
		for i, seconds := range []float64{put, get, peerPut, peerGet} {
			times[i] = append(times[i], seconds)
		}
	}
	for i, name := range []string{"s3 put", "s3 get"} {
		ours, peer := float64(megabytes)/slices.Min(times[i]), float64(megabytes)/slices.Min(times[i+2])
		if err := encode.Encode(speed{name, megabytes, ours, peer, ours / peer}); err != nil {
			return err
		}
	}
	return nil
}

func timedPut(ctx context.Context, store artifact.Store, file string) (artifact.Ref, float64, error) {
	f, err := os.Open(file)
	if err != nil {
		return artifact.Ref{}, 0, err
	}
	defer f.Close()
	begin := time.Now()
	ref, err := store.Put(ctx, "ours", f, nil)
	return ref, time.Since(begin).Seconds(), err
}

func (b *bench) boto(ctx context.Context, verb, file, key string) (seconds float64, err error) {
	cmd := exec.CommandContext(ctx, b.paths.MLflow, "-c", boto, verb, file, key)
	cmd.Env, cmd.Stderr = append(append(os.Environ(), b.ClientEnv()...), "NO_PROXY=127.0.0.1"), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("boto3 %s: %w", verb, err)
	}
	_, err = fmt.Sscan(string(out), &seconds)
	return seconds, err
}

// fill writes bytes that do not compress.
func fill(path string, megabytes int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	source := rand.NewChaCha8([32]byte{1})
	if _, err := io.CopyN(f, source, int64(megabytes)*1_000_000); err != nil {
		return err
	}
	return f.Close()
}
