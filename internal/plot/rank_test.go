package plot_test

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"gonum.org/v1/plot/plotter"

	"github.com/duratune/duratune/internal/plot"
)

// TestRank compares with scikit-learn, as internal/py/mlflow/curves.py recorded it.
func TestRank(t *testing.T) {
	data, err := os.ReadFile("testdata/sklearn.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name                        string
		Labels                      []int
		Scores                      []float64
		FPR, TPR, Precision, Recall []float64
		AUC, AP                     float64
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	for _, test := range cases {
		t.Run(test.Name, func(t *testing.T) {
			p := plot.Predictions{Classes: []string{"no", "yes"}, Labels: test.Labels}
			for _, s := range test.Scores {
				p.Probabilities = append(p.Probabilities, []float64{1 - s, s})
			}
			got, ok := p.Rank(1)
			want := plot.Ranking{ROC: zip(test.FPR, test.TPR), PR: zip(test.Recall, test.Precision), AUC: test.AUC, AP: test.AP}
			if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0, 1e-12)); diff != "" || !ok {
				t.Errorf("ok %v (-sklearn +got):\n%s", ok, diff)
			}
			// The other class ranks by the mirrored scores: the same area.
			if other, ok := p.Rank(0); !ok || math.Abs(other.AUC-test.AUC) > 1e-12 {
				t.Errorf("class 0: AUC %v, want %v", other.AUC, test.AUC)
			}
		})
	}
}

func zip(x, y []float64) []plotter.XY {
	out := make([]plotter.XY, len(x))
	for i := range x {
		out[i] = plotter.XY{X: x[i], Y: y[i]}
	}
	return out
}

// TestRankOneClass has nothing to rank.
func TestRankOneClass(t *testing.T) {
	p := plot.Predictions{Classes: []string{"a", "b"}, Labels: []int{0, 0}, Probabilities: [][]float64{{1, 0}, {0.5, 0.5}}}
	for class := range p.Classes {
		if _, ok := p.Rank(class); ok {
			t.Errorf("class %d was ranked", class)
		}
	}
}

// TestCalibration works one example by hand.
func TestCalibration(t *testing.T) {
	p := plot.Predictions{
		Classes: []string{"a", "b"}, Labels: []int{0, 1, 1, 0},
		Probabilities: [][]float64{{1, 0}, {0.08, 0.92}, {0.96, 0.04}, {0.45, 0.55}},
	}
	got, ece := p.Calibration()
	if got[9].Rows != 3 || math.Abs(got[9].Confidence-0.96) > 1e-12 || math.Abs(got[9].Accuracy-2.0/3) > 1e-12 {
		t.Errorf("the last tenth: %+v", got[9])
	}
	if got[5].Rows != 1 || got[5].Accuracy != 0 || got[4].Rows != 0 {
		t.Errorf("the middle: %+v %+v", got[4], got[5])
	}
	// 3/4 of |2/3 - 0.96| and 1/4 of |0 - 0.55|.
	if want := 0.75*(0.96-2.0/3) + 0.25*0.55; math.Abs(ece-want) > 1e-12 {
		t.Errorf("expected calibration error %v, want %v", ece, want)
	}
}

// TestPredicted takes the first of equals.
func TestPredicted(t *testing.T) {
	p := plot.Predictions{Probabilities: [][]float64{{0.2, 0.5, 0.3}, {0.4, 0.4, 0.2}, {0.1, 0.2, 0.7}}}
	if diff := cmp.Diff([]int{1, 0, 2}, p.Predicted()); diff != "" {
		t.Error(diff)
	}
}
