package train

import (
	"fmt"
	"math"
)

// Metrics is the quality of a set of predictions, by scikit-learn's definitions.
type Metrics struct {
	Loss      float64 `json:"eval_loss"` // mean cross-entropy
	Accuracy  float64 `json:"eval_accuracy"`
	F1        float64 `json:"eval_f1"` // of class 1 where there are two classes, else the macro average
	Precision float64 `json:"eval_precision"`
	Recall    float64 `json:"eval_recall"`
	Confusion [][]int `json:"confusion"` // [true class][predicted class]
}

// Score compares logits of shape [n][classes] with n class indexes.
func Score(logits [][]float32, labels []int64, classes int) (Metrics, error) {
	m := Metrics{Confusion: make([][]int, classes)}
	for i := range m.Confusion {
		m.Confusion[i] = make([]int, classes)
	}
	if len(logits) != len(labels) || len(labels) == 0 {
		return m, fmt.Errorf("score: %d rows of logits for %d labels", len(logits), len(labels))
	}
	var loss float64
	for i, row := range logits {
		y := int(labels[i])
		if y < 0 || y >= classes || len(row) != classes {
			return m, fmt.Errorf("score: row %d has label %d and %d logits, want a label below %d and as many logits", i, y, len(row), classes)
		}
		p := Softmax(row)
		loss -= logSoftmax(row, y)
		m.Confusion[y][Argmax(p)]++
	}
	m.Loss = loss / float64(len(labels))
	m.summarize(len(labels))
	return m, nil
}

// summarize fills the rates from the confusion counts; a class without predictions or rows counts as zero, as
// scikit-learn does with zero_division=0.
func (m *Metrics) summarize(n int) {
	classes := len(m.Confusion)
	var correct int
	from := 0
	if classes == 2 {
		from = 1
	}
	for c := range classes {
		correct += m.Confusion[c][c]
		if c < from {
			continue
		}
		var actual, predicted int
		for o := range classes {
			actual += m.Confusion[c][o]
			predicted += m.Confusion[o][c]
		}
		hit := float64(m.Confusion[c][c])
		share := 1 / float64(classes-from)
		m.Precision += share * hit / math.Max(1, float64(predicted))
		m.Recall += share * hit / math.Max(1, float64(actual))
		m.F1 += share * 2 * hit / math.Max(1, float64(actual+predicted))
	}
	m.Accuracy = float64(correct) / float64(n)
}

// Softmax turns logits into probabilities, in float64.
func Softmax(logits []float32) []float64 {
	p := make([]float64, len(logits))
	for i := range p {
		p[i] = math.Exp(logSoftmax(logits, i))
	}
	return p
}

// logSoftmax is the logarithm of class i's probability.
func logSoftmax(logits []float32, i int) float64 {
	top := float64(logits[0])
	for _, v := range logits {
		top = math.Max(top, float64(v))
	}
	var sum float64
	for _, v := range logits {
		sum += math.Exp(float64(v) - top)
	}
	return float64(logits[i]) - top - math.Log(sum)
}

// Argmax is the index of the largest value, the lowest one among equals.
func Argmax(p []float64) int {
	best := 0
	for i, v := range p {
		if v > p[best] {
			best = i
		}
	}
	return best
}
