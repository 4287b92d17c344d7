package plot

import (
	"fmt"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// bins of the reliability diagram, over confidences 0..1.
const bins = 10

// Bin is the rows whose confidence lies in one tenth.
type Bin struct {
	Rows       int
	Confidence float64 // mean of the highest probability; 0 without rows
	Accuracy   float64 // share of right predictions; 0 without rows
}

// Calibration sorts the rows into ten bins by the probability of the predicted class, and returns the expected
// calibration error: the mean distance of accuracy and confidence, weighted by rows.
func (p Predictions) Calibration() (out [bins]Bin, ece float64) {
	for i, class := range p.Predicted() {
		confidence := p.Probabilities[i][class]
		b := &out[min(bins-1, max(0, int(confidence*bins)))]
		b.Rows++
		b.Confidence += confidence
		if class == p.Labels[i] {
			b.Accuracy++
		}
	}
	for i := range out {
		b := &out[i]
		if b.Rows == 0 {
			continue
		}
		ece += math.Abs(b.Accuracy-b.Confidence) / float64(len(p.Labels))
		b.Accuracy /= float64(b.Rows)
		b.Confidence /= float64(b.Rows)
	}
	return out, ece
}

// Reliability draws accuracy over confidence, and below it how many rows each confidence has.
func (p Predictions) Reliability(title string) *Figure {
	calibration, ece := p.Calibration()
	upper := newPlot(fmt.Sprintf("%s\nexpected calibration error %.4f", title, ece), "", "accuracy")
	lower := newPlot("", "confidence", "rows")
	unit(upper)
	ideal := line(plotter.XYs{{X: 0, Y: 0}, {X: 1, Y: 1}}, grey, 1)
	ideal.Dashes = []vg.Length{5, 3}
	upper.Add(ideal)
	upper.Legend.Add("perfect", ideal)
	upper.Legend.Top, upper.Legend.Left, upper.Legend.XOffs = true, true, 6
	var points plotter.XYs
	var bars []bar
	most := 1.0
	for i, b := range calibration {
		if b.Rows > 0 {
			points = append(points, plotter.XY{X: b.Confidence, Y: b.Accuracy})
		}
		bars = append(bars, bar{float64(i) / bins, float64(i+1) / bins, float64(b.Rows)})
		most = max(most, float64(b.Rows))
	}
	add(upper, "model", points, 0, true)
	lower.Add(histogram{bars, 0})
	lower.X.Min, lower.X.Max, lower.Y.Min, lower.Y.Max = 0, 1, 0, most*1.05
	lower.Y.Tick.Marker = plot.TickerFunc(whole)
	if len(points) == 0 {
		upper = note(title, "", "accuracy", "no rows")
	}
	return &Figure{panels: [][]*plot.Plot{{upper}, {lower}}, width: 480, height: 560}
}

// bar covers from..to with a count.
type bar struct{ from, to, count float64 }

// histogram draws filled bars from zero.
type histogram struct {
	bars   []bar
	colour int
}

// Plot implements plot.Plotter.
func (h histogram) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	c.SetColor(hue(h.colour))
	for _, b := range h.bars {
		if b.count > 0 {
			c.Fill(vg.Rectangle{Min: vg.Point{X: x(b.from), Y: y(0)}, Max: vg.Point{X: x(b.to) - 0.5, Y: y(b.count)}}.Path())
		}
	}
}

// whole keeps the ticks of counts at whole numbers.
func whole(lo, hi float64) []plot.Tick {
	var out []plot.Tick
	for _, t := range round(lo, hi) {
		if t.Value == math.Trunc(t.Value) {
			out = append(out, t)
		}
	}
	return out
}
