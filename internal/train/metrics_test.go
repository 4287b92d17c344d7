package train

import (
	"math"
	"testing"
)

func TestScoreMatchesScikitLearn(t *testing.T) {
	// scikit-learn 1.7: accuracy_score, precision_recall_fscore_support(average="binary" | "macro", zero_division=0) on
	// the argmax of these logits; loss by torch.nn.functional.cross_entropy.
	tests := []struct {
		name                                  string
		classes                               int
		logits                                [][]float32
		labels                                []int64
		loss, accuracy, precision, recall, f1 float64
	}{
		{"binary", 2, [][]float32{{2, -1}, {0, 1}, {3, 0}, {-1, 2}, {1, 0}}, []int64{0, 1, 1, 1, 0},
			0.754457, 0.8, 1, 2.0 / 3, 0.8},
		{"binary without positives", 2, [][]float32{{2, -1}, {3, 0}}, []int64{0, 0}, 0.048587, 1, 0, 0, 0},
		{"macro", 3, [][]float32{{2, 0, 0}, {0, 2, 0}, {0, 2, 0}, {0, 0, 2}}, []int64{0, 1, 2, 2},
			0.739545, 0.75, 5.0 / 6, 5.0 / 6, (1 + 2.0/3 + 2.0/3) / 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Score(tt.logits, tt.labels, tt.classes)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				name      string
				got, want float64
			}{{"loss", m.Loss, tt.loss}, {"accuracy", m.Accuracy, tt.accuracy}, {"precision", m.Precision, tt.precision}, {"recall", m.Recall, tt.recall}, {"f1", m.F1, tt.f1}} {
				if math.Abs(c.got-c.want) > 1e-6 {
					t.Errorf("%s = %f, want %f", c.name, c.got, c.want)
				}
			}
		})
	}
}

func TestScoreRefusesLabelsOutOfRange(t *testing.T) {
	if _, err := Score([][]float32{{0, 1}}, []int64{2}, 2); err == nil {
		t.Error("label 2 of two classes was accepted")
	}
}
