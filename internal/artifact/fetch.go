package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Fetch returns the path of a local copy of ref, kept as dir/sha256/<digest>. A copy that is already there is verified
// against the digest before it is used again (about half a second a GB), and replaced if it is damaged. Any number of
// processes may fetch into the same folder. The file must not be changed.
func Fetch(ctx context.Context, store Store, ref Ref, dir string) (string, error) {
	if !validDigest(ref.SHA256) {
		return "", &Error{Op: "fetch", URI: plain(ref.URI), Err: ErrInvalidKey, Detail: "the ref has no digest"}
	}
	path := filepath.Join(dir, "sha256", ref.SHA256)
	if verifyFile(ctx, path, ref) == nil {
		return path, nil
	}
	if err := interrupted(ctx, "fetch", plain(ref.URI)); err != nil {
		return "", err
	}
	return path, Download(ctx, store, ref, path)
}

// verifyFile reads the file at path and checks it against ref.
func verifyFile(ctx context.Context, path string, ref Ref) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, Verify(readCloser{ctxReader{ctx, f}, f}, ref))
	return err
}

// Download writes ref to the file at path, making its folder, and returns after the bytes are verified and durable. The
// file appears whole or not at all; one that stood there is replaced.
func Download(ctx context.Context, store Store, ref Ref, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	r, err := store.Open(ctx, ref)
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.CreateTemp(filepath.Dir(path), partialName+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // no effect after the rename
	_ = lock(f)               // where there are no locks, what a dead process leaves stays
	_, err = copyChunks(f, r)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("download %s: %w", plain(ref.URI), err)
	}
	return nil
}

// partialName begins the name of a file that is being downloaded. Its process holds a lock on it, which dies with the process.
const partialName = ".download-"

// Tidy removes what processes that died have left of their downloads in a folder of [Fetch], and leaves those of the
// living alone.
func Tidy(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, "sha256", partialName+"*"))
	for _, path := range left {
		f, openErr := os.OpenFile(path, os.O_RDWR, 0)
		if errors.Is(openErr, fs.ErrNotExist) {
			continue // whole by now, or given up
		}
		if openErr != nil {
			err = errors.Join(err, openErr)
			continue
		}
		if lock(f) == nil { // whose process is dead
			if gone := os.Remove(path); !errors.Is(gone, fs.ErrNotExist) {
				err = errors.Join(err, gone)
			}
		}
		err = errors.Join(err, f.Close())
	}
	return err
}

// lock takes a file for this process, or fails at once if another has it.
func lock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }

// PutJSON stores v, unless key holds it already; other content there is ErrExists.
func PutJSON(ctx context.Context, store Store, key string, v any) (Ref, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return Ref{}, fmt.Errorf("put %s: %w", key, err)
	}
	return store.PutIfAbsent(ctx, key, body)
}

// GetJSON reads the object that ref names, of at most limit bytes, into v.
func GetJSON(ctx context.Context, store Store, ref Ref, limit int64, v any) error {
	if ref.Bytes > limit {
		return tooLong("get", plain(ref.URI), limit)
	}
	r, err := store.Open(ctx, ref)
	if err != nil {
		return err
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return &Error{Op: "get", URI: plain(ref.URI), Err: ErrCorrupt, Detail: err.Error()}
	}
	return nil
}
