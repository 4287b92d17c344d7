package artifact

import (
	"context"
	"errors"
	"fmt"
)

// Sentinels that every Store returns, wrapped in an [*Error] with the operation and the object.
var (
	// ErrNotFound says that the key does not exist (a missing bucket is ErrDenied, never this).
	ErrNotFound = errors.New("object not found")
	// ErrExists is returned by PutIfAbsent when the key holds other bytes.
	ErrExists = errors.New("object exists with other content")
	// ErrCorrupt says that the bytes read do not have the digest or the size of the Ref.
	ErrCorrupt = errors.New("object does not match its digest")
	// ErrInvalidKey says that a key breaks the rules of [Store], or that a Ref is not one of this store's.
	ErrInvalidKey = errors.New("invalid key")
	// ErrDenied says that the store refuses the request: credentials, permission, bucket. Retrying does not help.
	ErrDenied = errors.New("refused by the store")
	// ErrUnavailable says that the store could not be reached or failed for a passing reason; retrying may help.
	ErrUnavailable = errors.New("store unavailable")
)

// Error says which operation failed on which object. The cause is kept as text only: what a client library reports may
// hold a URL with more in it than belongs into a log.
type Error struct {
	Op     string // "put", "open", "list", …
	URI    string // of the object, or of the store
	Err    error  // one of the sentinels
	Detail string // e.g. "NoSuchBucket (404)"; may be empty
}

// Error names operation, object, kind and detail.
func (e *Error) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("%s %s: %v", e.Op, e.URI, e.Err)
	}
	return fmt.Sprintf("%s %s: %v: %s", e.Op, e.URI, e.Err, e.Detail)
}

// Unwrap returns the sentinel.
func (e *Error) Unwrap() error { return e.Err }

// interrupted returns ctx's error with the operation, or nil while ctx is alive. The cause of an error in a cancelled
// operation is the cancellation, whatever the client library made of it.
func interrupted(ctx context.Context, op, uri string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", op, uri, err)
	}
	return nil
}
