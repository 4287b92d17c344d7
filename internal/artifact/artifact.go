// Package artifact keeps the large objects of a run (shards, checkpoints, models) in an object store.
//
// A [Ref] names an object together with its digest, so that whoever reads it knows that it is
// the object that was meant. Objects are written once: a large object goes up unconditionally below the
// attempt's own prefix, and a small manifest, written last with [Store.PutIfAbsent], makes it real. [Open] finds the
// Store that a URI names; [Fetch] keeps downloads in a folder by their digest.
// The same conformance suite (artifacttest) runs against every Store.
package artifact

import (
	"context"
	"io"
	"iter"
)

// Ref names an immutable object by place and content. It is small enough to enter a workflow history.
type Ref struct {
	URI    string `json:"uri"`    // e.g. s3://bucket/runs/…/weights.safetensors
	SHA256 string `json:"sha256"` // hex
	Bytes  int64  `json:"bytes"`
}

// IsZero reports whether the Ref names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// Info describes a listed object.
type Info struct {
	Key   string
	Bytes int64
}

// Progress is told how many bytes of a transfer are done so far; it may be nil. Calls come from one goroutine at a time.
type Progress func(done int64)

// Store is a flat name space of immutable objects.
//
// Keys are slash-separated, relative to the store's root, and a key is never a prefix (by segments) of another. A key has
// at most 1024 bytes of printable UTF-8 and its segments at most 255; none is empty, "." or "..", and the first does not
// begin with a dot. [CheckKey] holds every store to it, since what one store keeps apart another may overwrite.
// All methods may be called concurrently, honour ctx, and may be repeated after an error.
type Store interface {
	// Put writes body under key, replacing what was there, and returns its Ref. It reads body from its current
	// position to its end.
	Put(ctx context.Context, key string, body io.ReadSeeker, progress Progress) (Ref, error)
	// PutIfAbsent writes a small body unless key exists. If it exists with the same bytes, its Ref is returned as if
	// this call had written it; with other bytes the error is ErrExists.
	PutIfAbsent(ctx context.Context, key string, body []byte) (Ref, error)
	// Open reads an object. The reader returns ErrCorrupt instead of io.EOF if size or digest differ from ref's. A ref
	// whose URI lies outside this store is ErrInvalidKey.
	Open(ctx context.Context, ref Ref) (io.ReadCloser, error)
	// Get reads the object at key whole, up to limit bytes (more is ErrCorrupt), with its Ref.
	Get(ctx context.Context, key string, limit int64) ([]byte, Ref, error)
	// List yields the objects below prefix (a whole key or a path ending at a segment boundary) in key order.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]
	// Delete removes keys; missing ones are no error.
	Delete(ctx context.Context, keys ...string) error
	// AbortUploads ends unfinished multipart uploads below prefix and returns how many there were.
	AbortUploads(ctx context.Context, prefix string) (int, error)
	// Check proves that the store can be reached, that the credentials may list, write and delete in it, and that it
	// honours PutIfAbsent, without which a zombie could overwrite a manifest.
	Check(ctx context.Context) error
}
