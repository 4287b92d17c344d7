package artifacttest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/artifact"
)

// BadKeys are refused by every method of every store.
var BadKeys = []string{
	"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a/..", ".hidden/a", ".uploads/a", "a\x00b", "a\nb", "a\x7f", "\xff",
	strings.Repeat("a", 256), "a/" + strings.Repeat("é", 128), strings.Repeat("abcdefg/", 128) + "a",
}

func testBadKeys(t *testing.T, s artifact.Store) {
	for _, key := range BadKeys {
		_, putErr := s.Put(t.Context(), key, strings.NewReader("x"), nil)
		_, absentErr := s.PutIfAbsent(t.Context(), key, []byte("x"))
		_, _, getErr := s.Get(t.Context(), key, 1)
		delErr := s.Delete(t.Context(), key)
		for op, err := range map[string]error{"put": putErr, "put if absent": absentErr, "get": getErr, "delete": delErr} {
			if !errors.Is(err, artifact.ErrInvalidKey) {
				t.Errorf("%s %.20q: %v, want ErrInvalidKey", op, key, err)
			}
		}
	}
	for _, prefix := range []string{"//", "/a", "a//", "..", "a/../b"} {
		var listErr error
		for _, err := range s.List(t.Context(), prefix) {
			listErr = err
		}
		if _, err := s.AbortUploads(t.Context(), prefix); !errors.Is(listErr, artifact.ErrInvalidKey) || !errors.Is(err, artifact.ErrInvalidKey) {
			t.Errorf("prefix %q: list %v, abort %v, want ErrInvalidKey", prefix, listErr, err)
		}
	}
	if keys := list(t, s, ""); len(keys) != 0 {
		t.Errorf("something was stored: %q", keys)
	}
}

func testOddKeys(t *testing.T, s artifact.Store) {
	keys := []string{
		"a b/c d", "plus+percent%2F%/q?x=1&y=2", "hash#tag", "ünï/cödé/日本/😀", `quote"'back\slash`, "a:b@c;d,e=f$g!h*i(j)", "~tilde", "a/.hidden", "a/...",
		strings.Repeat("x", 255), strings.Repeat("é", 127) + "/" + strings.Repeat("y", 200),
	}
	for _, key := range keys {
		ref := put(t, s, key, key)
		if got, err := read(t, s, ref); err != nil || string(got) != key {
			t.Errorf("%q: read %q, %v (%s)", key, got, err, ref.URI)
		}
		if got, again, err := s.Get(t.Context(), key, 1000); err != nil || string(got) != key || again != ref {
			t.Errorf("%q: got %q, %+v, %v", key, got, again, err)
		}
		if got := list(t, s, key); !slices.Equal(got, []string{key}) {
			t.Errorf("%q: list %q", key, got)
		}
	}
	slices.Sort(keys)
	if diff := cmp.Diff(keys, list(t, s, "")); diff != "" {
		t.Error(diff)
	}
	if err := s.Delete(t.Context(), keys...); err != nil {
		t.Error(err)
	}
	if left := list(t, s, ""); len(left) != 0 {
		t.Errorf("left after delete: %q", left)
	}
}

func testNestedKeys(t *testing.T, s artifact.Store) {
	put(t, s, "a/b", "x")
	for _, key := range []string{"a", "a/b/c", "a/b/c/d"} {
		if _, err := s.Put(t.Context(), key, strings.NewReader("y"), nil); !errors.Is(err, artifact.ErrInvalidKey) {
			t.Errorf("put %s beside a/b: %v, want ErrInvalidKey", key, err)
		}
		if _, err := s.PutIfAbsent(t.Context(), key, []byte("y")); !errors.Is(err, artifact.ErrInvalidKey) {
			t.Errorf("put if absent %s beside a/b: %v, want ErrInvalidKey", key, err)
		}
	}
	if err := s.Delete(t.Context(), "a", "a/b/c"); err != nil {
		t.Errorf("delete of keys that are none: %v", err)
	}
	if keys := list(t, s, ""); !slices.Equal(keys, []string{"a/b"}) {
		t.Errorf("left: %q", keys)
	}
	if err := s.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "z") // the name is free again
}

func testList(t *testing.T, s artifact.Store) {
	for _, key := range []string{"b/2", "b/10", "b-1/x", "b", "a/z", "bc/1", "c"} {
		if key != "b" { // never a prefix of another
			put(t, s, key, key)
		}
	}
	for _, tc := range []struct {
		prefix string
		want   []string
	}{
		{"", []string{"a/z", "b-1/x", "b/10", "b/2", "bc/1", "c"}},
		{"b", []string{"b/10", "b/2"}},
		{"b/", []string{"b/10", "b/2"}},
		{"b/1", []string{}},
		{"b/10", []string{"b/10"}},
		{"c", []string{"c"}},
		{"a/z/below", []string{}},
	} {
		if diff := cmp.Diff(tc.want, list(t, s, tc.prefix)); diff != "" {
			t.Errorf("list %q: %s", tc.prefix, diff)
		}
	}
	for info, err := range s.List(t.Context(), "") {
		if err != nil || info != (artifact.Info{Key: "a/z", Bytes: 3}) {
			t.Errorf("first: %+v, %v", info, err)
		}
		break
	}
}

// testListMany needs more than one page of 1,000.
func testListMany(t *testing.T, s artifact.Store) {
	const n = 1001
	var want []string
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < n; i += 8 {
				if _, err := s.Put(t.Context(), fmt.Sprintf("many/%04d", i), strings.NewReader("x"), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range n {
		want = append(want, fmt.Sprintf("many/%04d", i))
	}
	if diff := cmp.Diff(want, list(t, s, "many")); diff != "" {
		t.Error(diff)
	}
	if err := s.Delete(t.Context(), want...); err != nil {
		t.Error(err)
	}
	if left := list(t, s, ""); len(left) != 0 {
		t.Errorf("%d left after delete", len(left))
	}
}
