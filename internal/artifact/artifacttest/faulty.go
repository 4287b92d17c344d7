package artifacttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"

	"github.com/duratune/duratune/internal/artifact"
)

// Op is a method of a store.
type Op string

// The methods that can fail.
const (
	Put         Op = "put"
	PutIfAbsent Op = "put if absent"
	Open        Op = "open"
	Get         Op = "get"
	List        Op = "list"
	Delete      Op = "delete"
	Check       Op = "check"
)

// Fault is one thing that goes wrong. It applies to the calls of Op whose key contains Key, and of these to the Call-th.
type Fault struct {
	Op   Op
	Key  string // part of the key or URI; "" matches all
	Call int    // from 1; 0 is every call

	// Err is returned instead of doing anything; artifact.ErrUnavailable is the usual one. With After, the call is done
	// first and only its answer is lost.
	Err   error
	After bool
	// Cut drops that many bytes from the end of what Put stores and Open or Get reads.
	Cut int
	// Flip changes a bit in the middle of it.
	Flip bool
}

// Faulty is a store in which chosen calls go wrong. What Open reads is still checked against its Ref.
type Faulty struct {
	artifact.Store
	faults []Fault

	mu    sync.Mutex
	calls map[Op]int
	hits  []int // matching calls so far, by fault
}

// NewFaulty wraps a store.
func NewFaulty(s artifact.Store, faults ...Fault) *Faulty {
	return &Faulty{Store: s, faults: faults, calls: map[Op]int{}, hits: make([]int, len(faults))}
}

// Calls returns how often a method has been called.
func (f *Faulty) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// next counts a call and returns the fault that hits it, or none.
func (f *Faulty) next(op Op, key string) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[op]++
	var hit Fault
	for i, fault := range f.faults {
		if fault.Op != op || !strings.Contains(key, fault.Key) {
			continue
		}
		if f.hits[i]++; fault.Call == 0 || fault.Call == f.hits[i] {
			hit = fault
		}
	}
	return hit
}

// instead is the error of a call that is not made.
func (h Fault) instead(key string) error {
	if h.Err == nil || h.After {
		return nil
	}
	return fmt.Errorf("%s %s: %w", h.Op, key, h.Err)
}

// after is the error of a call that was made.
func (h Fault) after(key string, err error) error {
	if err == nil && h.After && h.Err != nil {
		return fmt.Errorf("%s %s: answer lost: %w", h.Op, key, h.Err)
	}
	return err
}

func (h Fault) damage(body []byte) []byte {
	body = bytes.Clone(body[:max(0, len(body)-h.Cut)])
	if h.Flip && len(body) > 0 {
		body[len(body)/2] ^= 1
	}
	return body
}

func (h Fault) damages() bool { return h.Cut > 0 || h.Flip }

// Put implements artifact.Store. A damaged body is stored under the Ref of the whole one: a store that lies.
func (f *Faulty) Put(ctx context.Context, key string, body io.ReadSeeker, progress artifact.Progress) (artifact.Ref, error) {
	hit := f.next(Put, key)
	if err := hit.instead(key); err != nil {
		return artifact.Ref{}, err
	}
	whole := body
	if hit.damages() {
		all, err := io.ReadAll(body)
		if err != nil {
			return artifact.Ref{}, err
		}
		whole = bytes.NewReader(all)
		defer func() { _, _ = f.Store.Put(ctx, key, bytes.NewReader(hit.damage(all)), nil) }()
	}
	ref, err := f.Store.Put(ctx, key, whole, progress)
	return ref, hit.after(key, err)
}

// PutIfAbsent implements artifact.Store.
func (f *Faulty) PutIfAbsent(ctx context.Context, key string, body []byte) (artifact.Ref, error) {
	hit := f.next(PutIfAbsent, key)
	if err := hit.instead(key); err != nil {
		return artifact.Ref{}, err
	}
	ref, err := f.Store.PutIfAbsent(ctx, key, body)
	return ref, hit.after(key, err)
}

// Open implements artifact.Store.
func (f *Faulty) Open(ctx context.Context, ref artifact.Ref) (io.ReadCloser, error) {
	hit := f.next(Open, ref.URI)
	if err := hit.instead(ref.URI); err != nil {
		return nil, err
	}
	r, err := f.Store.Open(ctx, ref)
	if err != nil || !hit.damages() {
		return r, hit.after(ref.URI, err)
	}
	body, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	return artifact.Verify(io.NopCloser(bytes.NewReader(hit.damage(body))), ref), nil
}

// Get implements artifact.Store. The Ref describes the damaged bytes, as it would if the store had them.
func (f *Faulty) Get(ctx context.Context, key string, limit int64) ([]byte, artifact.Ref, error) {
	hit := f.next(Get, key)
	if err := hit.instead(key); err != nil {
		return nil, artifact.Ref{}, err
	}
	body, ref, err := f.Store.Get(ctx, key, limit)
	if err != nil || !hit.damages() {
		return body, ref, hit.after(key, err)
	}
	m := artifact.NewMem()
	damaged, err := m.PutIfAbsent(ctx, "x", hit.damage(body))
	return hit.damage(body), artifact.Ref{URI: ref.URI, SHA256: damaged.SHA256, Bytes: damaged.Bytes}, err
}

// List implements artifact.Store.
func (f *Faulty) List(ctx context.Context, prefix string) iter.Seq2[artifact.Info, error] {
	if err := f.next(List, prefix).instead(prefix); err != nil {
		return func(yield func(artifact.Info, error) bool) { yield(artifact.Info{}, err) }
	}
	return f.Store.List(ctx, prefix)
}

// Delete implements artifact.Store.
func (f *Faulty) Delete(ctx context.Context, keys ...string) error {
	hit := f.next(Delete, strings.Join(keys, " "))
	if err := hit.instead(strings.Join(keys, " ")); err != nil {
		return err
	}
	return hit.after(strings.Join(keys, " "), f.Store.Delete(ctx, keys...))
}

// Check implements artifact.Store.
func (f *Faulty) Check(ctx context.Context) error {
	hit := f.next(Check, "")
	if err := hit.instead(""); err != nil {
		return err
	}
	return hit.after("", f.Store.Check(ctx))
}
