package artifacttest

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/duratune/duratune/internal/artifact"
)

func TestFaultyWithoutFaultsConforms(t *testing.T) {
	Run(t, func(*testing.T) artifact.Store { return NewFaulty(artifact.NewMem()) })
}

func TestFaultyFailsAtTheCall(t *testing.T) {
	f := NewFaulty(artifact.NewMem(), Fault{Op: PutIfAbsent, Key: "manifest", Call: 2, Err: artifact.ErrUnavailable})
	var errs []error
	for _, key := range []string{"a/manifest", "a/other", "b/manifest", "b/manifest"} {
		_, err := f.PutIfAbsent(t.Context(), key, []byte("x"))
		errs = append(errs, err)
	}
	if errs[0] != nil || errs[1] != nil || !errors.Is(errs[2], artifact.ErrUnavailable) || errs[3] != nil || f.Calls(PutIfAbsent) != 4 {
		t.Errorf("%v after %d calls", errs, f.Calls(PutIfAbsent))
	}
}

func TestFaultyLosesTheAnswer(t *testing.T) {
	f := NewFaulty(artifact.NewMem(), Fault{Op: PutIfAbsent, Call: 1, Err: artifact.ErrUnavailable, After: true})
	if _, err := f.PutIfAbsent(t.Context(), "k", []byte("x")); !errors.Is(err, artifact.ErrUnavailable) {
		t.Fatal(err)
	}
	body, _, err := f.Get(t.Context(), "k", 1)
	if err != nil || string(body) != "x" {
		t.Errorf("got %q, %v: the object was to be there", body, err)
	}
}

func TestFaultyDamages(t *testing.T) {
	for name, fault := range map[string]Fault{
		"put cut": {Op: Put, Cut: 1}, "put flip": {Op: Put, Flip: true}, "open cut": {Op: Open, Cut: 1}, "open flip": {Op: Open, Flip: true},
	} {
		f := NewFaulty(artifact.NewMem(), fault)
		ref, err := f.Put(t.Context(), "k", bytes.NewReader([]byte("hello")), nil)
		if err != nil || ref.Bytes != 5 {
			t.Fatal(ref, err)
		}
		r, err := f.Open(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(r); !errors.Is(err, artifact.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
	f := NewFaulty(artifact.NewMem(), Fault{Op: Get, Cut: 2})
	if _, err := f.PutIfAbsent(t.Context(), "k", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if body, ref, err := f.Get(t.Context(), "k", 9); string(body) != "hel" || ref.Bytes != 3 || err != nil {
		t.Errorf("got %q, %+v, %v", body, ref, err)
	}
}
