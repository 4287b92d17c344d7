package plot

import (
	"bytes"
	"fmt"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// dpi of PNGs: sharp on a dense screen, and still tens of kilobytes.
const dpi = 144

// Figure is a picture of one or more panels.
type Figure struct {
	panels        [][]*plot.Plot // [row][column]
	width, height vg.Length
}

// PNG encodes the figure as a bitmap of 144 dots an inch.
func (f *Figure) PNG() ([]byte, error) {
	c := vgimg.NewWith(vgimg.UseWH(f.width, f.height), vgimg.UseDPI(dpi), vgimg.UseBackgroundColor(color.White))
	f.draw(draw.New(c))
	var b bytes.Buffer
	if _, err := (vgimg.PngCanvas{Canvas: c}).WriteTo(&b); err != nil {
		return nil, fmt.Errorf("plot: encode: %w", err)
	}
	return b.Bytes(), nil
}

// draw paints the panels, whose data areas line up.
func (f *Figure) draw(c draw.Canvas) {
	tiles := draw.Tiles{
		Rows: len(f.panels), Cols: len(f.panels[0]), PadTop: 8, PadBottom: 8, PadLeft: 8, PadRight: 16, PadX: 18, PadY: 12,
	}
	for i, row := range plot.Align(f.panels, tiles, c) {
		for j, canvas := range row {
			f.panels[i][j].Draw(canvas)
		}
	}
}

// single is a figure of one panel.
func single(p *plot.Plot, width, height vg.Length) *Figure {
	return &Figure{panels: [][]*plot.Plot{{p}}, width: width, height: height}
}
