package artifact

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"net/url"
	"slices"
	"sync"
)

// Mem is a Store in memory, for tests.
type Mem struct {
	space
	mu      sync.RWMutex
	objects map[string][]byte // values are never changed in place
}

// NewMem returns an empty store.
func NewMem() *Mem {
	return &Mem{space: space{url.URL{Scheme: "mem"}}, objects: map[string][]byte{}}
}

var _ Store = (*Mem)(nil)

// Put implements Store.
func (m *Mem) Put(ctx context.Context, key string, body io.ReadSeeker, progress Progress) (Ref, error) {
	if err := m.ready(ctx, "put", key); err != nil {
		return Ref{}, err
	}
	d := newDigester(ctxReader{ctx, body}, progress)
	data, err := io.ReadAll(d)
	if err != nil {
		return Ref{}, fmt.Errorf("put %s: read body: %w", m.uri(key), err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.nested(key); err != nil {
		return Ref{}, err
	}
	m.objects[key] = data
	return d.ref(m.uri(key)), nil
}

// PutIfAbsent implements Store.
func (m *Mem) PutIfAbsent(ctx context.Context, key string, body []byte) (Ref, error) {
	if err := m.ready(ctx, "put", key); err != nil {
		return Ref{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.nested(key); err != nil {
		return Ref{}, err
	}
	if old, ok := m.objects[key]; ok && !bytes.Equal(old, body) {
		return Ref{}, &Error{Op: "put", URI: m.uri(key), Err: ErrExists}
	}
	m.objects[key] = bytes.Clone(body)
	return refOf(m.uri(key), body), nil
}

// Open implements Store.
func (m *Mem) Open(ctx context.Context, ref Ref) (io.ReadCloser, error) {
	key, err := m.key(ref)
	if err != nil {
		return nil, err
	}
	data, err := m.get(ctx, "open", key)
	if err != nil {
		return nil, err
	}
	return Verify(io.NopCloser(ctxReader{ctx, bytes.NewReader(data)}), ref), nil
}

// Get implements Store.
func (m *Mem) Get(ctx context.Context, key string, limit int64) ([]byte, Ref, error) {
	data, err := m.get(ctx, "get", key)
	if err != nil {
		return nil, Ref{}, err
	}
	if int64(len(data)) > limit {
		return nil, Ref{}, tooLong("get", m.uri(key), limit)
	}
	return bytes.Clone(data), refOf(m.uri(key), data), nil
}

// List implements Store.
func (m *Mem) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return listAll(ctx, m.space, prefix, func(prefix string) ([]Info, error) {
		m.mu.RLock()
		defer m.mu.RUnlock()
		var found []Info
		for key, data := range m.objects {
			if below(key, prefix) {
				found = append(found, Info{Key: key, Bytes: int64(len(data))})
			}
		}
		return found, nil
	})
}

// Delete implements Store.
func (m *Mem) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := m.ready(ctx, "delete", key); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		delete(m.objects, key)
	}
	return nil
}

// AbortUploads implements Store; an upload into memory leaves nothing behind.
func (m *Mem) AbortUploads(ctx context.Context, prefix string) (int, error) {
	if _, err := checkPrefix(prefix); err != nil {
		return 0, err
	}
	return 0, interrupted(ctx, "abort uploads", m.uri(""))
}

// Check implements Store.
func (m *Mem) Check(ctx context.Context) error { return checkStore(ctx, m) }

func (m *Mem) ready(ctx context.Context, op, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	return interrupted(ctx, op, m.uri(key))
}

func (m *Mem) get(ctx context.Context, op, key string) ([]byte, error) {
	if err := m.ready(ctx, op, key); err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	data, ok := m.objects[key]
	if !ok {
		return nil, &Error{Op: op, URI: m.uri(key), Err: ErrNotFound}
	}
	return data, nil
}

// nested refuses a key that has an object above or below it.
func (m *Mem) nested(key string) error {
	for other := range m.objects {
		if other != key && (below(other, key) || below(key, other)) {
			return &Error{Op: "put", URI: m.uri(key), Err: ErrInvalidKey, Detail: fmt.Sprintf("%q exists", other)}
		}
	}
	return nil
}

// listAll yields in key order what find returns for a checked prefix.
func listAll(ctx context.Context, s space, prefix string, find func(string) ([]Info, error)) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		prefix, err := checkPrefix(prefix)
		if err == nil {
			err = interrupted(ctx, "list", s.uri(prefix))
		}
		var found []Info
		if err == nil {
			found, err = find(prefix)
		}
		if err != nil {
			yield(Info{}, err)
			return
		}
		slices.SortFunc(found, func(a, b Info) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
		for _, info := range found {
			if !yield(info, nil) {
				return
			}
		}
	}
}

// ctxReader ends a long copy soon after ctx does.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func tooLong(op, uri string, limit int64) error {
	return &Error{Op: op, URI: uri, Err: ErrCorrupt, Detail: fmt.Sprintf("longer than %d bytes", limit)}
}
