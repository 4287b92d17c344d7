package hub

import (
	"context"
	"crypto/sha1" //nolint:gosec // git's object ids are SHA-1
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// blobName is a file's name in the cache: its digest, and the algorithm of it.
func (f File) blobName() string {
	if f.SHA256 != "" {
		return "sha256-" + f.SHA256
	}
	return "git-" + f.GitOID
}

// digest returns a hash that has the file's stated digest when it has seen the file's bytes.
func (f File) digest() hash.Hash {
	if f.SHA256 != "" {
		return sha256.New()
	}
	h := sha1.New()                              //nolint:gosec // see above
	_, _ = fmt.Fprintf(h, "blob %d\x00", f.Size) // as git hashes a blob
	return h
}

// stated is the digest that the hub states, in hex.
func (f File) stated() string {
	if f.SHA256 != "" {
		return f.SHA256
	}
	return f.GitOID
}

// partial is a download in progress. Its lock is held by one process and goroutine at a time; the bytes outlive both.
type partial struct {
	file *os.File
	blob string // where the file goes when it is whole
	want File

	hash hash.Hash // of the first size bytes
	size int64
	old  bool // some bytes are from an earlier download
}

// errHave says that the blob is already in the cache.
var errHave = errors.New("in the cache")

// openPartial locks the file's download and reads what is there already. While another holder is at work it waits and
// tells waiting how far that one is. The error is errHave if the blob turns out to be whole.
func openPartial(ctx context.Context, dir string, want File, waiting func(int64)) (*partial, error) {
	blob := filepath.Join(dir, want.blobName())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("hub: make cache folder: %w", err)
	}
	for {
		if haveBlob(blob, want.Size) {
			return nil, errHave
		}
		f, err := os.OpenFile(blob+".partial", os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("hub: open partial download: %w", err)
		}
		if err := lock(ctx, f, waiting); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if !isAt(f, blob+".partial") { // whoever held the lock has renamed or removed the file
			_ = f.Close()
			continue
		}
		p := &partial{file: f, blob: blob, want: want}
		if haveBlob(blob, want.Size) { // the file at the path is a new, empty one
			return nil, errors.Join(errHave, p.discard())
		}
		if err := p.load(ctx); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return p, nil
	}
}

// haveBlob reports whether the blob is in the cache. Its digest was checked when it was put there.
func haveBlob(blob string, size int64) bool {
	info, err := os.Stat(blob)
	return err == nil && info.Mode().IsRegular() && info.Size() == size
}

// lock takes the exclusive lock of f, which goes when f is closed or the process ends.
func lock(ctx context.Context, f *os.File, waiting func(int64)) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("hub: lock %s: %w", f.Name(), err)
		}
		if info, err := f.Stat(); err == nil {
			waiting(info.Size())
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// isAt reports whether path still names f.
func isAt(f *os.File, path string) bool {
	mine, err1 := f.Stat()
	there, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(mine, there)
}

// load hashes the bytes that an earlier download left. A file that is too long is started anew.
func (p *partial) load(ctx context.Context) error {
	info, err := p.file.Stat()
	if err != nil {
		return fmt.Errorf("hub: read partial download: %w", err)
	}
	if info.Size() > p.want.Size {
		return p.restart()
	}
	p.hash, p.old = p.want.digest(), info.Size() > 0
	p.size, err = io.Copy(p.hash, ctxReader{ctx, p.file})
	if err != nil {
		return fmt.Errorf("hub: read partial download: %w", err)
	}
	return nil
}

// ctxReader is a reader that stops when ctx is done.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r ctxReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(b)
}

// restart drops all bytes.
func (p *partial) restart() error {
	p.hash, p.size, p.old = p.want.digest(), 0, false
	_, err := p.file.Seek(0, io.SeekStart)
	if err := errors.Join(err, p.file.Truncate(0)); err != nil {
		return fmt.Errorf("hub: restart partial download: %w", err)
	}
	return nil
}

// Write appends to the file and the hash.
func (p *partial) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	p.hash.Write(b[:n])
	p.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("hub: write partial download: %w", err)
	}
	return n, nil
}

// verify reports whether the bytes are all there and have the stated digest; got is what they have.
func (p *partial) verify() (got string, ok bool) {
	got = hex.EncodeToString(p.hash.Sum(nil))
	return got, p.size == p.want.Size && got == p.want.stated()
}

// publish moves the whole file to its place in the cache and unlocks.
func (p *partial) publish() error {
	err := errors.Join(p.file.Sync(), p.file.Chmod(0o444), os.Rename(p.file.Name(), p.blob))
	if err := errors.Join(err, p.file.Close()); err != nil {
		return fmt.Errorf("hub: store %s in the cache: %w", p.want.Path, err)
	}
	return nil
}

// discard removes the file and unlocks.
func (p *partial) discard() error {
	err := os.Remove(p.file.Name())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, p.file.Close())
}

// keep leaves the bytes for the next download and unlocks.
func (p *partial) keep() error { return p.file.Close() }

// place makes path the same file as blob: a link, or a copy where the file system has none.
func place(blob, path string) error {
	have, err1 := os.Stat(path)
	want, err2 := os.Stat(blob)
	if err1 == nil && err2 == nil && os.SameFile(have, want) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("hub: make folder: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return fmt.Errorf("hub: place %s: %w", filepath.Base(path), err)
	}
	defer os.RemoveAll(tmp)
	next := filepath.Join(tmp, "file")
	if err := os.Link(blob, next); err != nil {
		if err := copyFile(blob, next); err != nil {
			return err
		}
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("hub: place %s: %w", filepath.Base(path), err)
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("hub: copy from the cache: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return fmt.Errorf("hub: copy from the cache: %w", err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("hub: copy from the cache: %w", err)
	}
	return nil
}
