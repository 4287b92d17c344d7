package plot

import (
	"fmt"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// maxLettered is the number of classes up to which cells carry their numbers.
const maxLettered = 25

// Confusion draws counts[actual][predicted] with each cell's share of its actual class; the shade is the share.
func Confusion(title string, classes []string, counts [][]int) *Figure {
	n := len(classes)
	p := newPlot(title, "predicted", "actual")
	p.Add(cells{counts})
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = -0.5, float64(n)-0.5, -0.5, float64(n)-0.5
	var x, y []plot.Tick
	for i, name := range classes {
		x = append(x, plot.Tick{Value: float64(i), Label: short(name)})
		y = append(y, plot.Tick{Value: float64(n - 1 - i), Label: short(name)}) // the first class on top
	}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.ConstantTicks(x), plot.ConstantTicks(y)
	if n > 6 { // names would run into one another
		p.X.Tick.Label.Rotation, p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = 0.8, draw.XRight, draw.YCenter
	}
	if n == 0 {
		p = note(title, "predicted", "actual", "no classes")
	}
	side := vg.Length(min(max(n, 4)*60, 1000))
	return single(p, side+140, side+100)
}

// cells paints the matrix.
type cells struct{ counts [][]int }

// Plot implements plot.Plotter.
func (m cells) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	n := len(m.counts)
	for i, row := range m.counts {
		total := 0
		for _, k := range row {
			total += k
		}
		for j, k := range row {
			share := 0.0
			if total > 0 {
				share = float64(k) / float64(total)
			}
			cx, cy := float64(j), float64(n-1-i)
			lo, hi := vg.Point{X: x(cx - 0.5), Y: y(cy - 0.5)}, vg.Point{X: x(cx + 0.5), Y: y(cy + 0.5)}
			c.SetColor(shade(share))
			c.Fill(vg.Rectangle{Min: lo, Max: hi}.Path())
			if n > maxLettered {
				continue
			}
			style := p.X.Tick.Label
			style.Rotation, style.XAlign, style.YAlign, style.Color = 0, draw.XCenter, draw.YCenter, ink
			if share > 0.5 {
				style.Color = color.White
			}
			label := fmt.Sprintf("%d\n%.1f %%", k, 100*share)
			if total == 0 {
				label = "no rows"
			}
			c.FillText(style, vg.Point{X: x(cx), Y: y(cy)}, label)
		}
	}
}

// shade goes from white to the first colour.
func shade(share float64) color.RGBA {
	mix := func(to uint8) uint8 { return uint8(255 - share*(255-float64(to))) }
	return color.RGBA{mix(hue(0).R), mix(hue(0).G), mix(hue(0).B), 0xff}
}
