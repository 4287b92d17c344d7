package metriclog

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/train"
)

// points makes one point a logging step in (from, to], stamped with the writer's clock.
func points(from, to, clock int64) []train.Point {
	var ps []train.Point
	for s := from + 8; s <= to; s += 8 {
		ps = append(ps, train.Point{Key: "loss", Value: 1 / float64(s), Step: s, Timestamp: clock + s})
	}
	return ps
}

func open(t *testing.T, store artifact.Store, step int64) *Log {
	t.Helper()
	l, err := Open(t.Context(), store, "run/metrics", step)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func appendTo(t *testing.T, l *Log, to int64, ps []train.Point) []train.Point {
	t.Helper()
	got, err := l.Append(t.Context(), to, ps)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func all(t *testing.T, store artifact.Store) []train.Point {
	t.Helper()
	got, err := All(t.Context(), store, "run/metrics")
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRetryAdoptsWhatIsStored(t *testing.T) {
	store := artifact.NewMem()
	first := open(t, store, 0)
	appendTo(t, first, 40, points(0, 40, 1000))
	appendTo(t, first, 64, points(40, 64, 1000))

	// The second attempt begins at step 0 again, with another clock and other segment bounds.
	second := open(t, store, 0)
	got := appendTo(t, second, 48, points(0, 48, 9000))
	if diff := cmp.Diff(points(0, 64, 1000), got); diff != "" {
		t.Errorf("points of the first append (-want +got):\n%s", diff)
	}
	if got := appendTo(t, second, 56, points(48, 56, 9000)); len(got) != 0 {
		t.Errorf("steps that are covered gave %v", got)
	}
	if diff := cmp.Diff(points(64, 80, 9000), appendTo(t, second, 80, points(48, 80, 9000))); diff != "" {
		t.Errorf("points behind the stored ones (-want +got):\n%s", diff)
	}
	want := append(points(0, 64, 1000), points(64, 80, 9000)...)
	if diff := cmp.Diff(want, all(t, store)); diff != "" {
		t.Errorf("chain (-want +got):\n%s", diff)
	}
}

func TestZombieAndSuccessorAgree(t *testing.T) {
	// Whoever appends first at each place wins; both end up with one chain and have seen nothing but its points.
	for split := int64(8); split <= 72; split += 8 {
		t.Run(fmt.Sprintf("split %d", split), func(t *testing.T) {
			store := artifact.NewMem()
			zombie, successor := open(t, store, 0), open(t, store, 0)
			seen := map[train.Point]bool{}
			for _, p := range appendTo(t, zombie, split, points(0, split, 1000)) {
				seen[p] = true
			}
			for _, p := range appendTo(t, successor, 40, points(0, 40, 9000)) {
				seen[p] = true
			}
			for _, p := range appendTo(t, zombie, 80, points(split, 80, 1000)) {
				seen[p] = true
			}
			for _, p := range appendTo(t, successor, 80, points(40, 80, 9000)) {
				seen[p] = true
			}
			chain := all(t, store)
			if len(chain) != 10 || len(seen) != 10 {
				t.Fatalf("chain has %d points, writers saw %d, want 10 each", len(chain), len(seen))
			}
			for _, p := range chain {
				if !seen[p] {
					t.Errorf("%+v was pushed by nobody", p)
				}
			}
		})
	}
}

func TestOpenPositionsAtAStep(t *testing.T) {
	store := artifact.NewMem()
	l := open(t, store, 0)
	appendTo(t, l, 40, points(0, 40, 1000))
	appendTo(t, l, 64, points(40, 64, 1000))
	for _, tt := range []struct{ step, end int64 }{{0, 0}, {8, 0}, {40, 40}, {41, 40}, {63, 40}, {64, 64}} {
		if got := open(t, store, tt.step).end; got != tt.end {
			t.Errorf("Open at step %d stands at %d, want %d", tt.step, got, tt.end)
		}
	}
}

func TestOnceKeepsTheFirst(t *testing.T) {
	store := artifact.NewMem()
	a, b := []train.Point{{Key: "eval_loss", Value: 1, Step: 9, Timestamp: 1}}, []train.Point{{Key: "eval_loss", Value: 1, Step: 9, Timestamp: 2}}
	for _, given := range [][]train.Point{a, b} {
		got, err := Once(t.Context(), store, "run/metrics", "eval", given)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(a, got); diff != "" {
			t.Errorf("points (-want +got):\n%s", diff)
		}
	}
	events, err := Events(t.Context(), store, "run/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if steps := all(t, store); len(steps) != 0 {
		t.Errorf("events stand in the chain of steps: %v", steps)
	}
}
