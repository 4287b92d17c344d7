package plot

import (
	"cmp"
	"image/color"
	"slices"
)

// Group is runs that are drawn alike: one colour, one entry in the legend.
type Group struct {
	Name string
	Runs [][]Point
}

// Overlay draws the curves of several groups of runs into one panel: each run thin and pale, a group's mean over its runs
// on top. Points are paired by position; the mean ends with the shortest run.
func Overlay(title, y string, groups []Group) *Figure {
	p, drawn := newPlot(title, "step", y), false
	for i, g := range groups {
		c := hue(i)
		for _, run := range g.Runs {
			// Half transparent over white, spelled out: alpha would be premultiplied.
			if l := line(xys(run), color.RGBA{c.R/2 + 127, c.G/2 + 127, c.B/2 + 127, 0xff}, 0.7); l != nil {
				p.Add(l)
				drawn = true
			}
			p.X.Max = max(p.X.Max, last(run))
		}
	}
	for i, g := range groups { // after all runs, so that none covers a mean
		add(p, g.Name, xys(mean(g.Runs)), i, false)
	}
	if !drawn {
		p = note(title, "step", y, "no finite value was logged")
	}
	p.X.Min, p.Y.Min, p.Legend.Top = 0, min(0, p.Y.Min), true
	return single(p, 760, 420)
}

// mean is the curve of the means over the runs.
func mean(runs [][]Point) []Point {
	if len(runs) == 0 {
		return nil
	}
	shortest := slices.MinFunc(runs, func(a, b []Point) int { return cmp.Compare(len(a), len(b)) })
	out := make([]Point, len(shortest))
	for i := range out {
		out[i].Step = shortest[i].Step
		for _, run := range runs {
			out[i].Value += run[i].Value / float64(len(runs))
		}
	}
	return out
}
