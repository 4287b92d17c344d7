// Package compare says whether one classifier beats another on the same rows: the difference of their accuracies, its
// paired bootstrap interval, and McNemar's exact test of the rows that only one of them has right.
package compare

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// resamples is how often the rows are drawn anew; the interval's ends then have about two significant digits.
const resamples = 10_000

// Result compares a candidate with the present champion. The figures are shares, not percent.
type Result struct {
	Rows          int     `json:"rows"`
	Candidate     float64 `json:"candidate_accuracy"`
	Champion      float64 `json:"champion_accuracy"`
	Difference    float64 `json:"difference"`     // candidate's accuracy less the champion's
	Low           float64 `json:"low"`            // of the difference's 95 % bootstrap interval
	High          float64 `json:"high"`           // of the same
	OnlyCandidate int     `json:"only_candidate"` // rows that the candidate alone has right
	OnlyChampion  int     `json:"only_champion"`  // rows that the champion alone has right
	P             float64 `json:"p"`              // McNemar's exact test, two-sided
}

// Paired compares the classes that two models predict for the same rows with the rows' own. The seed decides the
// bootstrap's draws. It is an error if the three differ in length or are empty.
func Paired(labels, candidate, champion []int, seed int64) (Result, error) {
	n := len(labels)
	if n == 0 || len(candidate) != n || len(champion) != n {
		return Result{}, fmt.Errorf("compare: %d labels, %d and %d predictions, want as many of each and at least one", n, len(candidate), len(champion))
	}
	var candidateRight, championRight int
	r := Result{Rows: n}
	for i, label := range labels {
		a, b := candidate[i] == label, champion[i] == label
		switch {
		case a && !b:
			r.OnlyCandidate++
		case b && !a:
			r.OnlyChampion++
		}
		candidateRight += b2i(a)
		championRight += b2i(b)
	}
	r.Candidate, r.Champion = float64(candidateRight)/float64(n), float64(championRight)/float64(n)
	r.Difference = float64(r.OnlyCandidate-r.OnlyChampion) / float64(n) // exact, unlike the difference of the two
	r.P = McNemar(r.OnlyCandidate, r.OnlyChampion)
	r.Low, r.High = interval(r.OnlyCandidate, r.OnlyChampion, n, seed)
	return r, nil
}

// McNemar is the two-sided p-value of the exact test: if both models were equally good, each of the b+c rows that one of
// them alone has right would be either's with a probability of one half.
func McNemar(b, c int) float64 {
	n := b + c
	if n == 0 {
		return 1
	}
	logChoose := func(k int) float64 {
		a, _ := math.Lgamma(float64(n + 1))
		d, _ := math.Lgamma(float64(k + 1))
		e, _ := math.Lgamma(float64(n - k + 1))
		return a - d - e
	}
	var tail float64
	for k := range min(b, c) + 1 {
		tail += math.Exp(logChoose(k) - float64(n)*math.Ln2)
	}
	return math.Min(1, 2*tail)
}

// interval draws the rows anew, with replacement. Of a row only matters who alone has it right, so that a draw of n rows
// is one of two numbers, however large n is.
func interval(b, c, n int, seed int64) (low, high float64) {
	if b+c == 0 {
		return 0, 0
	}
	src := rand.NewPCG(uint64(seed), 0x636f6d70617265)
	differing := distuv.Binomial{N: float64(n), P: float64(b+c) / float64(n), Src: src}
	differences := make([]float64, resamples)
	for i := range differences {
		m := float64(n) // all rows differ
		if b+c < n {
			m = differing.Rand()
		}
		wins := m * float64(b) / float64(b+c) // 0 or m where only one of them is ever right alone
		if b > 0 && c > 0 && m > 0 {
			wins = distuv.Binomial{N: m, P: float64(b) / float64(b+c), Src: src}.Rand()
		}
		differences[i] = (2*wins - m) / float64(n)
	}
	slices.Sort(differences)
	return differences[resamples*25/1000], differences[resamples*975/1000-1]
}

// Better reports whether the candidate is more accurate than the champion by at least margin, at a p-value of at most
// maxP. Equally accurate is not better, whatever the margin.
func (r Result) Better(margin, maxP float64) bool {
	const rounding = 1e-12 // a difference of 2 rows in 1,000 is the margin 0.002
	return r.Difference > 0 && r.Difference >= margin-rounding && r.P <= maxP
}

// String is the comparison in a sentence.
func (r Result) String() string {
	return fmt.Sprintf("accuracy %.4f against %.4f on the same %d rows: %+.4f (95 %% interval %+.4f to %+.4f, paired bootstrap); "+
		"%d rows right by the candidate alone, %d by the champion alone, McNemar's exact p = %.3g",
		r.Candidate, r.Champion, r.Rows, r.Difference, r.Low, r.High, r.OnlyCandidate, r.OnlyChampion, r.P)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
