package plot

import (
	"cmp"
	"fmt"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
)

// maxCurves is how many classes get a curve; the most frequent ones do.
const maxCurves = 6

// Predictions are what a model said of labelled rows.
type Predictions struct {
	Classes       []string
	Probabilities [][]float64 // [row][class], finite
	Labels        []int       // [row], index of the actual class
}

// Predicted is the class of the highest probability of each row, the first of equals.
func (p Predictions) Predicted() []int {
	out := make([]int, len(p.Probabilities))
	for i, row := range p.Probabilities {
		for j, v := range row {
			if v > row[out[i]] {
				out[i] = j
			}
		}
	}
	return out
}

// Ranking is how well the probability of one class tells its rows from the others.
type Ranking struct {
	ROC []plotter.XY // false positive rate, true positive rate; from (0, 0) to (1, 1)
	PR  []plotter.XY // recall, precision; from recall 0 (precision 1) on
	AUC float64      // area under ROC, by trapezoids
	AP  float64      // average precision, by steps: the sum of precision times the rise in recall
}

// Rank ranks the rows of class against all others, as sklearn's roc_curve and precision_recall_curve do: one point a
// distinct probability. It reports false where one of the two sides has no rows.
func (p Predictions) Rank(class int) (Ranking, bool) {
	type scored struct {
		score    float64
		positive bool
	}
	rows := make([]scored, len(p.Labels))
	var positives, negatives float64
	for i, label := range p.Labels {
		rows[i] = scored{p.Probabilities[i][class], label == class}
		if label == class {
			positives++
		} else {
			negatives++
		}
	}
	if positives == 0 || negatives == 0 {
		return Ranking{}, false
	}
	slices.SortFunc(rows, func(a, b scored) int { return cmp.Compare(b.score, a.score) })
	r := Ranking{ROC: []plotter.XY{{}}, PR: []plotter.XY{{X: 0, Y: 1}}}
	var tp, fp float64
	for i, row := range rows {
		if row.positive {
			tp++
		} else {
			fp++
		}
		if i+1 < len(rows) && rows[i+1].score == row.score {
			continue // equal scores fall on the same side of every threshold
		}
		roc := plotter.XY{X: fp / negatives, Y: tp / positives}
		pr := plotter.XY{X: tp / positives, Y: tp / (tp + fp)}
		before := r.ROC[len(r.ROC)-1]
		r.AUC += (roc.X - before.X) * (roc.Y + before.Y) / 2
		r.AP += (pr.X - r.PR[len(r.PR)-1].X) * pr.Y
		r.ROC, r.PR = append(r.ROC, roc), append(r.PR, pr)
	}
	return r, true
}

// operating is where the model's own decision lies on both curves of a class.
func (p Predictions) operating(class int) (roc, pr plotter.XY) {
	var tp, fp, positives float64
	for i, predicted := range p.Predicted() {
		actual := p.Labels[i] == class
		switch {
		case predicted == class && actual:
			tp++
		case predicted == class:
			fp++
		}
		if actual {
			positives++
		}
	}
	negatives := float64(len(p.Labels)) - positives
	precision := 1.0 // where PR curves begin
	if tp+fp > 0 {
		precision = tp / (tp + fp)
	}
	return plotter.XY{X: fp / negatives, Y: tp / positives}, plotter.XY{X: tp / positives, Y: precision}
}

// shown lists the classes that get a curve: of two the second, else the most frequent.
func (p Predictions) shown() []int {
	if len(p.Classes) == 2 {
		return []int{1}
	}
	rows := make([]int, len(p.Classes))
	for _, label := range p.Labels {
		rows[label]++
	}
	out := make([]int, len(p.Classes))
	for i := range out {
		out[i] = i
	}
	slices.SortStableFunc(out, func(a, b int) int { return cmp.Compare(rows[b], rows[a]) })
	return out[:min(len(out), maxCurves)]
}

// oneClass is said where no class can be ranked.
const oneClass = "one class only in the test rows:\nnothing to tell apart"

// PR draws precision over recall, with the model's own decision as a dot.
func (p Predictions) PR(title string) *Figure {
	const x, y = "recall", "precision"
	pr := newPlot(title, x, y)
	unit(pr)
	pr.Legend.Left, pr.Legend.XOffs, pr.Legend.YOffs = true, 6, 6
	drawn := p.ranked(func(i, class int, r Ranking) {
		_, at := p.operating(class)
		curve(pr, r.PR, at, i, fmt.Sprintf("%s: AP %.4f", short(p.Classes[class]), r.AP))
	})
	if drawn == 0 {
		pr = note(title, x, y, oneClass)
	}
	return single(pr, 480, 440)
}

// ROC draws the true over the false positive rate, with the model's own decision as a dot.
func (p Predictions) ROC(title string) *Figure {
	const x, y = "false positive rate", "true positive rate"
	roc := newPlot(title, x, y)
	unit(roc)
	roc.Add(line(plotter.XYs{{X: 0, Y: 0}, {X: 1, Y: 1}}, grey, 1)) // chance
	roc.Legend.XOffs, roc.Legend.YOffs = -6, 6
	drawn := p.ranked(func(i, class int, r Ranking) {
		at, _ := p.operating(class)
		curve(roc, r.ROC, at, i, fmt.Sprintf("%s: AUC %.4f", short(p.Classes[class]), r.AUC))
	})
	if drawn == 0 {
		roc = note(title, x, y, oneClass)
	}
	return single(roc, 480, 440)
}

// ranked calls draw for each class to be shown that can be ranked, with its place among them, and returns how many.
func (p Predictions) ranked(draw func(i, class int, r Ranking)) int {
	n := 0
	for _, class := range p.shown() {
		if r, ok := p.Rank(class); ok {
			draw(n, class, r)
			n++
		}
	}
	return n
}

// curve adds one class; the dot is its operating point.
func curve(p *plot.Plot, points []plotter.XY, at plotter.XY, colour int, name string) {
	l := line(thin(points), hue(colour), 1.5)
	d := dots(plotter.XYs{at}, hue(colour), 4)
	p.Add(l, d)
	p.Legend.Add(name, l, d)
}

// maxPoints of a curve are more than a picture has columns.
const maxPoints = 5_000

// thin keeps at most about maxPoints points, evenly, with both ends: a curve has one a row.
func thin(points []plotter.XY) []plotter.XY {
	every := (len(points) + maxPoints - 1) / maxPoints
	if every <= 1 {
		return points
	}
	var out []plotter.XY
	for i := 0; i < len(points)-1; i += every {
		out = append(out, points[i])
	}
	return append(out, points[len(points)-1])
}
