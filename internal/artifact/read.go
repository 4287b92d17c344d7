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
