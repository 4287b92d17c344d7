package plot

import (
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Okabe and Ito's palette, in the order of use.
var palette = []color.RGBA{
	{0x00, 0x72, 0xb2, 0xff}, {0xd5, 0x5e, 0x00, 0xff}, {0x00, 0x9e, 0x73, 0xff},
	{0xcc, 0x79, 0xa7, 0xff}, {0xe6, 0x9f, 0x00, 0xff}, {0x56, 0xb4, 0xe9, 0xff},
}

var (
	ink  = color.RGBA{0x22, 0x22, 0x22, 0xff}
	grey = color.RGBA{0x88, 0x88, 0x88, 0xff}
	pale = color.RGBA{0xdd, 0xdd, 0xdd, 0xff}
)

// hue is the i-th colour, again from the start when they run out.
func hue(i int) color.RGBA { return palette[i%len(palette)] }

// newPlot is a panel in the package's style, with a grid.
func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.Padding = 6
	for _, s := range []struct {
		style *text.Style
		size  vg.Length
	}{
		{&p.Title.TextStyle, 11}, {&p.X.Label.TextStyle, 10}, {&p.Y.Label.TextStyle, 10},
		{&p.X.Tick.Label, 9}, {&p.Y.Tick.Label, 9}, {&p.Legend.TextStyle, 9},
	} {
		s.style.Font.Variant, s.style.Font.Size, s.style.Color = "Sans", s.size, ink
	}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.TickerFunc(round), plot.TickerFunc(round)
	p.Legend.Padding, p.Legend.ThumbnailWidth = 3, 18
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = pale, pale
	p.Add(grid)
	return p
}

// unit fixes both axes to 0..1.
func unit(p *plot.Plot) {
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, 1, 0, 1.02
}

// round puts about six ticks at multiples of 1, 2 or 5 times a power of ten.
func round(lo, hi float64) []plot.Tick {
	step := math.Pow(10, math.Floor(math.Log10((hi-lo)/5)))
	for _, m := range []float64{5, 2} {
		if (hi-lo)/(m*step) >= 4 {
			step *= m
			break
		}
	}
	var out []plot.Tick
	for i := int(math.Ceil(lo/step - 1e-9)); float64(i)*step <= hi+step*1e-9; i++ {
		v := float64(i) * step
		out = append(out, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', 6, 64)})
	}
	return out
}

// line is a polyline; points that are not finite are left out. Nil where none is left.
func line(points plotter.XYs, c color.Color, width vg.Length) *plotter.Line {
	points = finite(points)
	l, err := plotter.NewLine(points)
	if err != nil || len(points) == 0 {
		return nil
	}
	l.Color, l.Width = c, width
	return l
}

// dots marks points with filled circles; nil where none is finite.
func dots(points plotter.XYs, c color.Color, radius vg.Length) *plotter.Scatter {
	points = finite(points)
	s, err := plotter.NewScatter(points)
	if err != nil || len(points) == 0 {
		return nil
	}
	s.GlyphStyle = draw.GlyphStyle{Color: c, Radius: radius, Shape: draw.CircleGlyph{}}
	return s
}

func finite(points plotter.XYs) plotter.XYs {
	var out plotter.XYs
	for _, p := range points {
		if isFinite(p.X) && isFinite(p.Y) {
			out = append(out, p)
		}
	}
	return out
}

func isFinite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// upright draws a dashed vertical line over the panel's height, with a legend entry.
func upright(p *plot.Plot, x, top float64, c color.Color, name string) {
	l := line(plotter.XYs{{X: x, Y: p.Y.Min}, {X: x, Y: top}}, c, 1.5)
	if l == nil {
		return
	}
	l.Dashes = []vg.Length{5, 3}
	p.Add(l)
	p.Legend.Add(name, l)
}

// note is a panel that says why there is nothing to see.
func note(title, x, y, message string) *plot.Plot {
	p := newPlot(title, x, y)
	unit(p)
	p.Add(centred{message})
	return p
}

// centred writes a text into the middle of a panel.
type centred struct{ text string }

// Plot implements plot.Plotter.
func (t centred) Plot(c draw.Canvas, p *plot.Plot) {
	style := p.Title.TextStyle
	style.Color, style.XAlign, style.YAlign = grey, draw.XCenter, draw.YCenter
	c.FillText(style, c.Center(), t.text)
}

// short cuts a name to what fits beside an axis.
func short(name string) string {
	r := []rune(name)
	if len(r) > 18 {
		return string(r[:17]) + "…"
	}
	return name
}
