// Package artifacttest holds what tests of stores and of their users share: the conformance suite that every
// [artifact.Store] passes, and [Faulty], a store that fails on purpose.
package artifacttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/duratune/duratune/internal/artifact"
)

// Run holds a store to the contract of [artifact.Store]. newStore returns an empty one for each part of the suite.
//
// AWS itself lets a key be a prefix of another; every store that keeps objects as files, and thus this suite, refuses.
func Run(t *testing.T, newStore func(t *testing.T) artifact.Store) {
	for _, part := range []struct {
		name string
		test func(*testing.T, artifact.Store)
	}{
		{"PutAndOpen", testPutAndOpen},
		{"Overwrite", testOverwrite},
		{"PutIfAbsent", testPutIfAbsent},
		{"PutIfAbsentRace", testPutIfAbsentRace},
		{"Get", testGet},
		{"Missing", testMissing},
		{"Digest", testDigest},
		{"ForeignRefs", testForeignRefs},
		{"BadKeys", testBadKeys},
		{"OddKeys", testOddKeys},
		{"NestedKeys", testNestedKeys},
		{"List", testList},
		{"ListMany", testListMany},
		{"Delete", testDelete},
		{"Cancelled", testCancelled},
		{"BrokenBody", testBrokenBody},
		{"Concurrent", testConcurrent},
		{"Check", testCheck},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, newStore(t)) })
	}
}

func put(t *testing.T, s artifact.Store, key, body string) artifact.Ref {
	t.Helper()
	ref, err := s.Put(t.Context(), key, strings.NewReader(body), nil)
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return ref
}

func read(t *testing.T, s artifact.Store, ref artifact.Ref) ([]byte, error) {
	t.Helper()
	r, err := s.Open(t.Context(), ref)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r)
	return body, errors.Join(err, r.Close())
}

func list(t *testing.T, s artifact.Store, prefix string) []string {
	t.Helper()
	keys := []string{}
	for info, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("list %q: %v", prefix, err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// pattern is n bytes that repeat only after a prime number, so that swapped parts show.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

func testPutAndOpen(t *testing.T, s artifact.Store) {
	// 20 MiB and a bit: several parts, the last one short, where there are parts.
	for _, n := range []int{0, 1, 1000, 20<<20 + 3} {
		body := pattern(n)
		var last int64
		calls := 0
		r := bytes.NewReader(append([]byte("skipped"), body...))
		if _, err := r.Seek(7, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		ref, err := s.Put(t.Context(), fmt.Sprintf("dir/object-%d", n), r, func(done int64) {
			if done < last {
				t.Errorf("progress went from %d to %d", last, done)
			}
			last, calls = done, calls+1
		})
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(body)
		if ref.SHA256 != hex.EncodeToString(sum[:]) || ref.Bytes != int64(n) || ref.URI == "" {
			t.Errorf("ref %+v of %d bytes", ref, n)
		}
		if n > 0 && (last != int64(n) || calls == 0) {
			t.Errorf("progress ended at %d of %d", last, n)
		}
		got, err := read(t, s, ref)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes: read %d, %v", n, len(got), err)
		}
	}
}

func testOverwrite(t *testing.T, s artifact.Store) {
	old := put(t, s, "k", "old content")
	ref := put(t, s, "k", "new")
	if got, err := read(t, s, ref); err != nil || string(got) != "new" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := read(t, s, old); !errors.Is(err, artifact.ErrCorrupt) {
		t.Errorf("the old ref reads %v, want ErrCorrupt", err)
	}
}

func testPutIfAbsent(t *testing.T, s artifact.Store) {
	first, err := s.PutIfAbsent(t.Context(), "a/manifest", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.PutIfAbsent(t.Context(), "a/manifest", []byte("one"))
	if err != nil || again != first {
		t.Errorf("the same bytes again: %+v, %v; want %+v", again, err, first)
	}
	for _, other := range []string{"two", "", "one and more"} {
		if _, err := s.PutIfAbsent(t.Context(), "a/manifest", []byte(other)); !errors.Is(err, artifact.ErrExists) {
			t.Errorf("other bytes %q: %v, want ErrExists", other, err)
		}
	}
	if got, err := read(t, s, first); err != nil || string(got) != "one" {
		t.Errorf("read %q, %v", got, err)
	}
	put(t, s, "b", "one")
	if _, err := s.PutIfAbsent(t.Context(), "b", []byte("two")); !errors.Is(err, artifact.ErrExists) {
		t.Errorf("after a plain put: %v, want ErrExists", err)
	}
	empty, err := s.PutIfAbsent(t.Context(), "empty", nil)
	if got, readErr := read(t, s, empty); err != nil || readErr != nil || len(got) != 0 {
		t.Errorf("an empty object: %q, %v, %v", got, err, readErr)
	}
}

func testPutIfAbsentRace(t *testing.T, s artifact.Store) {
	const writers = 8
	for round := range 5 {
		var wins atomic.Int32
		var winner atomic.Value
		key := fmt.Sprintf("race/%d", round)
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				body := fmt.Sprintf("writer %d", i)
				_, err := s.PutIfAbsent(t.Context(), key, []byte(body))
				if err == nil {
					wins.Add(1)
					winner.Store(body)
				} else if !errors.Is(err, artifact.ErrExists) {
					t.Errorf("writer %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		body, _, err := s.Get(t.Context(), key, 100)
		if err != nil || wins.Load() != 1 || string(body) != winner.Load() {
			t.Errorf("%d winners, object %q, %v; want the one of %v", wins.Load(), body, err, winner.Load())
		}
	}
}

func testGet(t *testing.T, s artifact.Store) {
	want := put(t, s, "x/y", "hello")
	body, ref, err := s.Get(t.Context(), "x/y", 5)
	if err != nil || string(body) != "hello" || ref != want {
		t.Errorf("got %q, %+v, %v; want %+v", body, ref, err, want)
	}
	if _, _, err := s.Get(t.Context(), "x/y", 4); !errors.Is(err, artifact.ErrCorrupt) {
		t.Errorf("over the limit: %v, want ErrCorrupt", err)
	}
}

func testMissing(t *testing.T, s artifact.Store) {
	ref := put(t, s, "dir/there", "x")
	gone := artifact.Ref{URI: strings.Replace(ref.URI, "there", "gone", 1), SHA256: ref.SHA256, Bytes: 1}
	if _, err := read(t, s, gone); !errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("open: %v, want ErrNotFound", err)
	}
	for _, key := range []string{"dir/gone", "dir", "dir/there/below", "other/dir"} {
		_, _, err := s.Get(t.Context(), key, 10)
		if e, ok := errors.AsType[*artifact.Error](err); !ok || !errors.Is(err, artifact.ErrNotFound) || !strings.Contains(e.URI, key) {
			t.Errorf("get %s: %v, want ErrNotFound", key, err)
		}
	}
	if keys := list(t, s, "nothing/here"); len(keys) != 0 {
		t.Errorf("list of nothing: %q", keys)
	}
}

func testDigest(t *testing.T, s artifact.Store) {
	ref := put(t, s, "k", "hello")
	for name, bad := range map[string]artifact.Ref{
		"digest": {URI: ref.URI, SHA256: strings.Repeat("0", 64), Bytes: 5},
		"longer": {URI: ref.URI, SHA256: ref.SHA256, Bytes: 6},
		"short":  {URI: ref.URI, SHA256: ref.SHA256, Bytes: 4},
		"empty":  {URI: ref.URI, SHA256: ref.SHA256, Bytes: 0},
	} {
		if _, err := read(t, s, bad); !errors.Is(err, artifact.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}

func testForeignRefs(t *testing.T, s artifact.Store) {
	ref := put(t, s, "dir/k", "hello")
	root := strings.TrimSuffix(ref.URI, "dir/k")
	for _, uri := range []string{
		"", root, root + "dir/../dir/k", root + "dir//k", root + "dir/k?versionId=1", root + "dir/k#x", root + "dir/%6b", root + "/dir/k",
		strings.Replace(root, "://", "://user:secret@", 1) + "dir/k", "s3://elsewhere/dir/k", "file:///etc/passwd", "http://host/dir/k", "::",
	} {
		_, err := s.Open(t.Context(), artifact.Ref{URI: uri, SHA256: ref.SHA256, Bytes: ref.Bytes})
		if !errors.Is(err, artifact.ErrInvalidKey) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want ErrInvalidKey", uri, err)
		}
	}
	for _, digest := range []string{"", "../../x", strings.ToUpper(ref.SHA256)} {
		if _, err := s.Open(t.Context(), artifact.Ref{URI: ref.URI, SHA256: digest, Bytes: 5}); !errors.Is(err, artifact.ErrInvalidKey) {
			t.Errorf("digest %q: %v, want ErrInvalidKey", digest, err)
		}
	}
}

func testDelete(t *testing.T, s artifact.Store) {
	ref := put(t, s, "a/1", "x")
	put(t, s, "a/2", "x")
	if err := s.Delete(t.Context(), "a/1", "a/gone", "gone"); err != nil {
		t.Error(err)
	}
	if err := s.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := read(t, s, ref); !errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("a deleted object: %v, want ErrNotFound", err)
	}
	if keys := list(t, s, ""); !slices.Equal(keys, []string{"a/2"}) {
		t.Errorf("left: %q", keys)
	}
}

func testCancelled(t *testing.T, s artifact.Store) {
	ref := put(t, s, "k", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, putErr := s.Put(ctx, "p", strings.NewReader("x"), nil)
	_, absentErr := s.PutIfAbsent(ctx, "q", []byte("x"))
	_, _, getErr := s.Get(ctx, "k", 1)
	_, openErr := s.Open(ctx, ref)
	_, abortErr := s.AbortUploads(ctx, "")
	var listErr error
	for _, listErr = range s.List(ctx, "") {
	}
	for op, err := range map[string]error{
		"put": putErr, "put if absent": absentErr, "get": getErr, "open": openErr, "list": listErr, "abort": abortErr,
		"delete": s.Delete(ctx, "k"), "check": s.Check(ctx),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", op, err)
		}
	}
	if keys := list(t, s, ""); !slices.Equal(keys, []string{"k"}) {
		t.Errorf("left: %q", keys)
	}
	testCancelledPut(t, s)
}

// testCancelledPut cancels in the middle of a large object: nothing may stand under its key.
func testCancelledPut(t *testing.T, s artifact.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := s.Put(ctx, "large", bytes.NewReader(pattern(40<<20)), func(int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("put: %v, want context.Canceled", err)
	}
	if keys := list(t, s, "large"); len(keys) != 0 {
		t.Errorf("left: %q", keys)
	}
	if n, err := s.AbortUploads(t.Context(), ""); n != 0 || err != nil {
		t.Errorf("%d unfinished uploads, %v", n, err)
	}
}

var errBody = errors.New("disk fell off")

// brokenBody is a body of n bytes whose reading fails after the first byte.
type brokenBody struct{ *bytes.Reader }

func (b brokenBody) Read(p []byte) (int, error) {
	if b.Len() < int(b.Size()) {
		return 0, errBody
	}
	return b.Reader.Read(p[:1])
}

func testBrokenBody(t *testing.T, s artifact.Store) {
	for _, n := range []int{10, 20 << 20} {
		_, err := s.Put(t.Context(), "k", brokenBody{bytes.NewReader(pattern(n))}, nil)
		if !errors.Is(err, errBody) {
			t.Errorf("%d bytes: %v, want the body's error", n, err)
		}
	}
	if keys := list(t, s, ""); len(keys) != 0 {
		t.Errorf("left: %q", keys)
	}
	if n, err := s.AbortUploads(t.Context(), ""); n != 0 || err != nil {
		t.Errorf("%d unfinished uploads, %v", n, err)
	}
}

// testConcurrent writes and deletes siblings, so that one's folder may vanish under another.
func testConcurrent(t *testing.T, s artifact.Store) {
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			key := fmt.Sprintf("deep/er/%d", w)
			for i := range 20 {
				body := fmt.Sprintf("%d-%d", w, i)
				ref, err := putAgain(t, s, key, body)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := read(t, s, ref); err != nil || string(got) != body {
					t.Errorf("read %q, %v", got, err)
				}
				if err := s.Delete(t.Context(), key); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// putAgain repeats a put that the store could not do at the moment.
func putAgain(t *testing.T, s artifact.Store, key, body string) (ref artifact.Ref, err error) {
	for range 20 {
		ref, err = s.Put(t.Context(), key, strings.NewReader(body), nil)
		if !errors.Is(err, artifact.ErrUnavailable) {
			break
		}
	}
	return ref, err
}

func testCheck(t *testing.T, s artifact.Store) {
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if keys := list(t, s, ""); len(keys) != 0 {
		t.Errorf("check left %q", keys)
	}
}
