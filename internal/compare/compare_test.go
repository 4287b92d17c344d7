package compare

import (
	"math"
	"testing"
)

// TestMcNemar: the exact test is a sum of binomial coefficients over a power of two.
func TestMcNemar(t *testing.T) {
	tests := []struct {
		b, c int
		want float64
	}{
		{0, 0, 1},
		{1, 0, 1},
		{5, 5, 1},
		{0, 6, 2 * 1.0 / 64},
		{9, 1, 2 * (1 + 10) / 1024.0},
		{1, 9, 2 * (1 + 10) / 1024.0},
		{5, 15, 2 * (1 + 20 + 190 + 1140 + 4845 + 15504) / 1048576.0},
	}
	for _, tt := range tests {
		if got := McNemar(tt.b, tt.c); math.Abs(got-tt.want) > 1e-12 {
			t.Errorf("McNemar(%d, %d) = %v, want %v", tt.b, tt.c, got, tt.want)
		}
	}
	if p := McNemar(600_000, 400_000); p != 0 { // far below the smallest float
		t.Errorf("McNemar(600000, 400000) = %v, want 0", p)
	}
}

// rows makes n rows of class 1, of which the candidate alone has b right, the champion alone c, and both the rest.
func rows(n, b, c int) (labels, candidate, champion []int) {
	for i := range n {
		labels = append(labels, 1)
		candidate = append(candidate, b2i(i < b || i >= b+c))
		champion = append(champion, b2i(i >= b))
	}
	return labels, candidate, champion
}

func TestPaired(t *testing.T) {
	labels, candidate, champion := rows(1000, 30, 10)
	r, err := Paired(labels, candidate, champion, 42)
	if err != nil {
		t.Fatal(err)
	}
	if r.Candidate != 0.99 || r.Champion != 0.97 || r.Difference != 0.02 || r.OnlyCandidate != 30 || r.OnlyChampion != 10 {
		t.Errorf("got %+v", r)
	}
	// The difference has the variance of a multinomial, and is close to normal at this size.
	half := 1.96 * math.Sqrt((0.04-0.02*0.02)/1000)
	if math.Abs(r.Low-(0.02-half)) > 0.0015 || math.Abs(r.High-(0.02+half)) > 0.0015 {
		t.Errorf("interval %.4f to %.4f, want about %.4f to %.4f", r.Low, r.High, 0.02-half, 0.02+half)
	}
	if again, _ := Paired(labels, candidate, champion, 42); again != r {
		t.Errorf("the same seed gives %+v and %+v", r, again)
	}
}

func TestPairedAtTheEdges(t *testing.T) {
	tests := []struct {
		name      string
		n, b, c   int
		low, high float64
	}{
		{"alike", 50, 0, 0, 0, 0},
		{"every row won", 50, 50, 0, 1, 1},
		{"every row lost", 50, 0, 50, -1, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := Paired(rowsOf(tt.n, tt.b, tt.c))
			if err != nil || r.Low != tt.low || r.High != tt.high {
				t.Errorf("interval %v to %v, %v, want %v to %v", r.Low, r.High, err, tt.low, tt.high)
			}
		})
	}
	if _, err := Paired([]int{1}, []int{1}, nil, 1); err == nil {
		t.Error("predictions of no rows are taken")
	}
	if _, err := Paired(nil, nil, nil, 1); err == nil {
		t.Error("no rows are compared")
	}
}

func rowsOf(n, b, c int) (labels, candidate, champion []int, seed int64) {
	labels, candidate, champion = rows(n, b, c)
	return labels, candidate, champion, 1
}

func TestBetter(t *testing.T) {
	r := Result{Difference: 0.002, P: 0.04}
	tests := []struct {
		name   string
		r      Result
		margin float64
		maxP   float64
		want   bool
	}{
		{"by any margin", r, 0, 1, true},
		{"by just the margin", r, 0.002, 1, true},
		{"by less", r, 0.0021, 1, false},
		{"significantly", r, 0, 0.05, true},
		{"by chance", r, 0, 0.03, false},
		{"equal", Result{P: 1}, 0, 1, false},
		{"worse", Result{Difference: -0.01, P: 0.01}, 0, 1, false},
	}
	for _, tt := range tests {
		if got := tt.r.Better(tt.margin, tt.maxP); got != tt.want {
			t.Errorf("%s: better = %v, want %v", tt.name, got, tt.want)
		}
	}
}
