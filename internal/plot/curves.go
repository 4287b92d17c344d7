package plot

import (
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
)

// Point is a value at a global step.
type Point struct {
	Step  int64
	Value float64
}

// Curves draws the training loss with the evaluation loss as points, and the learning rate below, over the steps.
// Values that are not finite leave a gap in no line: they are left out.
func Curves(title string, loss, eval, learningRate []Point) *Figure {
	upper, lower := newPlot(title, "", "loss"), newPlot("", "step", "learning rate")
	add(upper, "training", xys(loss), 0, false)
	add(upper, "evaluation", xys(eval), 1, true)
	upper.Legend.Top = true
	add(lower, "", xys(learningRate), 2, false)
	// One axis of steps for both.
	end := max(last(loss), last(eval), last(learningRate), 1)
	for _, p := range []*plot.Plot{upper, lower} {
		p.X.Min, p.X.Max, p.Y.Min = 0, end, min(0, p.Y.Min)
	}
	if len(finite(xys(loss)))+len(finite(xys(eval))) == 0 {
		upper = note(title, "", "loss", "no finite loss was logged")
	}
	if len(finite(xys(learningRate))) == 0 {
		lower = note("", "step", "learning rate", "no learning rate was logged")
	}
	return &Figure{panels: [][]*plot.Plot{{upper}, {lower}}, width: 640, height: 480}
}

// add draws a series as a line, with dots where marked or where it is a single point.
func add(p *plot.Plot, name string, points plotter.XYs, colour int, marked bool) {
	l := line(points, hue(colour), 1.5)
	if l == nil {
		return
	}
	p.Add(l)
	entry := []plot.Thumbnailer{l}
	if marked || len(l.XYs) == 1 {
		d := dots(points, hue(colour), 3.5)
		p.Add(d)
		entry = append(entry, d)
	}
	if name != "" {
		p.Legend.Add(name, entry...)
	}
}

func xys(points []Point) plotter.XYs {
	out := make(plotter.XYs, len(points))
	for i, p := range points {
		out[i] = plotter.XY{X: float64(p.Step), Y: p.Value}
	}
	return out
}

func last(points []Point) float64 {
	var m int64
	for _, p := range points {
		m = max(m, p.Step)
	}
	return float64(m)
}
