//go:build torch

package torch

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duratune/duratune/infra/libtorch"
	"github.com/duratune/duratune/internal/train"
)

// on runs fn on a thread with two cores, in a scope that it checks.
func on(t *testing.T, fn func(s *Scope)) {
	t.Helper()
	th, err := NewThread(2)
	if err != nil {
		t.Fatal(err)
	}
	defer th.Close()
	before := Live()
	err = th.Do(t.Context(), func() error {
		s := NewScope()
		defer s.Close()
		fn(s)
		return s.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	if now := Live(); now != before {
		t.Errorf("%d tensors are left", now-before)
	}
}

func TestThreadTurnsPanicsIntoErrors(t *testing.T) {
	th, err := NewThread(1)
	if err != nil {
		t.Fatal(err)
	}
	err = th.Do(t.Context(), func() error { panic("boom") })
	if err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := th.Do(ctx, func() error { t.Error("ran"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	th.Close()
	if err := th.Do(t.Context(), func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestScopeKeepsTheFirstError(t *testing.T) {
	th, err := NewThread(1)
	if err != nil {
		t.Fatal(err)
	}
	defer th.Close()
	before := Live()
	err = th.Do(t.Context(), func() error {
		s := NewScope()
		defer s.Close()
		a, b := s.Zeros(Float32, CPU, 2, 3), s.Zeros(Float32, CPU, 4, 5)
		c := s.Add(s.Add(a, b), a)
		if !c.IsNone() || !s.View(c, 6).IsNone() || s.Floats(c) != nil {
			t.Error("operations go on after an error")
		}
		return s.Err()
	})
	if err == nil || !strings.HasPrefix(err.Error(), "torch: add: The size of tensor") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %q", err)
	}
	if Live() != before {
		t.Error("tensors are left")
	}
}

func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		msg  string
		want error
	}{
		{"CUDA out of memory. Tried to allocate 2.00 GiB", train.ErrOutOfMemory},
		{"[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried", train.ErrOutOfMemory},
		{"CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be", train.ErrDevice},
		{"CUBLAS_STATUS_EXECUTION_FAILED when calling", train.ErrDevice},
	} {
		if err := classify("op", tt.msg); !errors.Is(err, tt.want) {
			t.Errorf("%q is %v", tt.msg, err)
		}
	}
	if err := classify("op", "shape mismatch"); errors.Is(err, train.ErrDevice) || err.Error() != "torch: op: shape mismatch" {
		t.Errorf("got %v", err)
	}
}

func TestDropoutIsAFunctionOfItsKeys(t *testing.T) {
	on(t, func(s *Scope) {
		const rows, width, p = 64, 1000, 0.3
		ones := make([]float32, rows*width)
		for i := range ones {
			ones[i] = 1
		}
		keys := make([]int64, rows)
		for i := range keys {
			keys[i] = int64(i) * 7919
		}
		x, k := Of(s, ones, rows, width), Of(s, keys, rows)
		drop := func(k Tensor, site int64) []float32 { return s.Floats(s.Drop(x, Dropout{Keys: k, Site: site, P: p})) }
		a, again, other := drop(k, 3), drop(k, 3), drop(k, 4)
		var kept, both int
		for i, v := range a {
			if v != again[i] {
				t.Fatal("the same keys give another mask")
			}
			if v != 0 {
				kept++
				if math.Abs(float64(v)-1/(1-p)) > 1e-6 {
					t.Fatalf("a kept element is %v, want %v", v, 1/(1-p))
				}
				if other[i] != 0 {
					both++
				}
			}
		}
		n := float64(len(a))
		if share := float64(kept) / n; math.Abs(share-(1-p)) > 0.01 {
			t.Errorf("%v of the elements are kept, want %v", share, 1-p)
		}
		if share := float64(both) / n; math.Abs(share-(1-p)*(1-p)) > 0.01 {
			t.Errorf("two sites keep %v of the elements in common, want %v", share, (1-p)*(1-p))
		}
		// A row's mask follows its key, not its place.
		two := s.Narrow(x, 0, 0, 2)
		flipped := s.Floats(s.Drop(two, Dropout{Keys: Of(s, []int64{keys[1], keys[0]}, 2), Site: 3, P: p}))
		for i := range width {
			if s.Err() == nil && flipped[i] != a[width+i] {
				t.Fatal("the mask depends on the place of the row")
			}
		}
	})
}

func TestL2IsExactAndIndependentOfThreads(t *testing.T) {
	x := make([]float32, 1_000_003)
	var want float64
	for i := range x {
		x[i] = float32(math.Sin(float64(i))) * 1e-3
		want += float64(x[i]) * float64(x[i])
	}
	want = math.Sqrt(want)
	var got []float64
	for _, cores := range []int{1, 2} {
		th, err := NewThread(cores)
		if err != nil {
			t.Fatal(err)
		}
		err = th.Do(t.Context(), func() error {
			s := NewScope()
			defer s.Close()
			norm, err := L2(Of(s, x, int64(len(x))))
			got = append(got, norm)
			return errors.Join(err, s.Err())
		})
		if err != nil {
			t.Fatal(err)
		}
		th.Close()
	}
	if got[0] != got[1] || math.Abs(got[0]-want) > 1e-12*want {
		t.Errorf("got %v with one and two threads, want %v", got, want)
	}
}

func TestDropoutNeedsAKeyForEachRow(t *testing.T) {
	th, err := NewThread(1)
	if err != nil {
		t.Fatal(err)
	}
	defer th.Close()
	err = th.Do(t.Context(), func() error {
		s := NewScope()
		defer s.Close()
		s.Drop(s.Zeros(Float32, CPU, 3, 4), Dropout{Keys: Of(s, []int64{1, 2}, 2), P: 0.5})
		return s.Err()
	})
	if err == nil || !strings.Contains(err.Error(), "3 rows") {
		t.Errorf("got %v", err)
	}
}

func TestGPUsAreCountedWithoutADriver(t *testing.T) {
	n, err := GPUs()
	t.Logf("%d GPUs, %v", n, err)
	if err != nil && !errors.Is(err, train.ErrNoLibtorch) {
		t.Errorf("got %v, want ErrNoLibtorch or none", err)
	}
}

func TestInstructionSetIsNamed(t *testing.T) {
	if set := InstructionSet(); set == "" || strings.HasPrefix(set, " ") {
		t.Errorf("got %q", set)
	}
}

// A worker takes only the plugin that was built with it, and says what is wrong with another.
func TestOpenCardChecksThePlugin(t *testing.T) {
	root, err := libtorch.Root()
	if err != nil {
		t.Fatal(err)
	}
	for plugin, want := range map[string]string{
		"plugin.so":                                      "want an absolute path",
		filepath.Join(t.TempDir(), "none"):               "run the set-up",
		filepath.Join(root, "torch", "lib", "libc10.so"): "no dt_cuda_hash", // a library, but not the plugin
	} {
		t.Setenv("DURATUNE_CUDA_PLUGIN", plugin)
		_, _, err := OpenCard(CardConfig{Device: 0})
		if !errors.Is(err, train.ErrNoLibtorch) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", plugin, err, want)
		}
	}
}
