package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/duratune/duratune/internal/artifact"
)

// speed is what is printed of one direction; MB are 10^6 bytes.
type speed struct {
	Case      string  `json:"case"`
	Megabytes int     `json:"megabytes"`
	Ours      float64 `json:"ours_mb_per_second"`  // the best of all rounds, digests included
	Peer      float64 `json:"boto3_mb_per_second"` // likewise, without digests
	Ratio     float64 `json:"ratio"`
	Raw       float64 `json:"raw_mb_per_second"` // likewise, of one plain HTTP request: what the store can do
	Share     float64 `json:"share_of_raw"`
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

// s3 moves an object to the store and back, with our client, with boto3's transfer manager and with plain HTTP requests
// in turn. Ours takes the SHA-256 on both ways and makes the file durable; all write a file when they read.
func (b *bench) s3(ctx context.Context, megabytes, rounds int, encode *json.Encoder) error {
	store, err := b.store(ctx, "s3://duratune/databench-s3")
	if err != nil {
		return err
	}
	file := filepath.Join(b.State, "object")
	if err := fill(file, megabytes); err != nil {
		return err
	}
	var ref artifact.Ref
	moves := []func() (float64, error){
		func() (seconds float64, err error) {
			ref, seconds, err = timedPut(ctx, store, file)
			return seconds, err
		},
		func() (float64, error) {
			begin := time.Now()
			err := artifact.Download(ctx, store, ref, file+".got")
			return time.Since(begin).Seconds(), err
		},
		func() (float64, error) { return b.boto(ctx, "put", file, "databench-s3/peer") },
		func() (float64, error) { return b.boto(ctx, "get", file+".peer", "databench-s3/peer") },
		func() (float64, error) { return b.raw(ctx, http.MethodPut, file, "databench-s3/raw") },
		func() (float64, error) { return b.raw(ctx, http.MethodGet, file+".raw", "databench-s3/raw") },
	}
	best := make([]float64, len(moves)) // MB a second
	for range rounds {
		for i, move := range moves {
			seconds, err := move()
			if err != nil {
				return err
			}
			best[i] = max(best[i], float64(megabytes)/seconds)
		}
	}
	for i, name := range []string{"s3 put", "s3 get"} {
		ours, peer, raw := best[i], best[i+2], best[i+4]
		if err := encode.Encode(speed{name, megabytes, ours, peer, ours / peer, raw, ours / raw}); err != nil {
			return err
		}
	}
	return nil
}

// raw sends a file to the store, or a body of the store to a file, by one plain HTTP request, signed beforehand.
func (b *bench) raw(ctx context.Context, method, file, key string) (seconds float64, err error) {
	signer := s3.NewPresignClient(s3.NewFromConfig(b.aws(), func(o *s3.Options) { o.UsePathStyle = true }))
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	req := (&http.Request{Method: method}).WithContext(ctx)
	var signed *v4.PresignedHTTPRequest
	if method == http.MethodPut {
		signed, err = signer.PresignPutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("duratune"), Key: &key})
		info, statErr := f.Stat()
		if err = errors.Join(err, statErr); err != nil {
			return 0, err
		}
		req.Body, req.ContentLength = io.NopCloser(f), info.Size()
	} else if signed, err = signer.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("duratune"), Key: &key}); err != nil {
		return 0, err
	}
	if req.URL, err = url.Parse(signed.URL); err != nil {
		return 0, err
	}
	begin := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	to := io.Discard
	if method == http.MethodGet {
		to = f
	}
	if _, err := io.Copy(to, resp.Body); err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s %s: %s", method, key, resp.Status)
	}
	return time.Since(begin).Seconds(), nil
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
