package artifact

import (
	"bytes"
	"context"
	"io"
	"iter"
)

// Source is a place that holds what others wrote: objects that no [Ref] names and whose digest nobody knows beforehand.
// What is read of it is not verified, and may be another object the next time.
type Source interface {
	// List yields the objects below prefix in key order, as [Store] does.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]
	// Read streams the object at key.
	Read(ctx context.Context, key string) (io.ReadCloser, error)
}

var (
	_ Source = (*S3)(nil)
	_ Source = (*Mem)(nil)
)

// Read implements Source.
func (s *S3) Read(ctx context.Context, key string) (io.ReadCloser, error) {
	return s.get(ctx, "read", key)
}

// Read implements Source.
func (m *Mem) Read(ctx context.Context, key string) (io.ReadCloser, error) {
	data, err := m.get(ctx, "read", key)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(ctxReader{ctx, bytes.NewReader(data)}), nil
}

// chunk is how much of a large object is moved at a time.
const chunk = 1 << 20

// ahead is a body of which a goroutine reads a chunk before it is asked for.
type ahead struct {
	*io.PipeReader
	body io.Closer
}

// readAhead makes the store's checksum, which reading body takes, and our own digest be taken at the same time.
func readAhead(body io.ReadCloser) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		_, err := copyChunks(w, body)
		_ = w.CloseWithError(err) // never fails; nil is io.EOF
	}()
	return &ahead{r, body}
}

// Close ends the goroutine too.
func (a *ahead) Close() error {
	_ = a.PipeReader.Close() // never fails
	return a.body.Close()
}

// copyChunks is io.Copy in larger steps than it takes by itself, and than the methods of its arguments do: a checksum of
// the SDK makes its tables at every call.
func copyChunks(w io.Writer, r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, chunk))
}
