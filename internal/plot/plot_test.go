package plot_test

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/duratune/duratune/internal/plot"
)

// figures draws every picture from ordinary and from odd data.
func figures() map[string]*plot.Figure {
	rng := rand.New(rand.NewPCG(1, 2))
	var loss, eval, lr []plot.Point
	for s := int64(8); s <= 1674; s += 8 {
		loss = append(loss, plot.Point{Step: s, Value: 0.02 + 0.6*math.Exp(-float64(s)/150)*(1+0.3*rng.NormFloat64())})
		lr = append(lr, plot.Point{Step: s, Value: 5e-5 * (1 - float64(s)/1674)})
	}
	for _, s := range []int64{558, 1116, 1674} {
		eval = append(eval, plot.Point{Step: s, Value: 0.05 + 10/float64(s)})
	}
	two, many, one := predictions(rng, 2, 500), predictions(rng, 8, 900), predictions(rng, 2, 40)
	for i := range one.Labels {
		one.Labels[i] = 0
	}
	names := make([]string, 40)
	for i := range names {
		names[i] = fmt.Sprintf("a rather long class name %d", i)
	}
	lengths, truncated := make([]int, 129), 0
	for range 5574 {
		n := 2 + int(rng.ExpFloat64()*30)
		if n > 128 {
			truncated++
		}
		lengths[min(n, 128)]++
	}
	latencies := hdr.New(1, 3_600_000_000, 3)
	for range 500 {
		_ = latencies.RecordValue(int64(2000 + rng.ExpFloat64()*3000)) // within its range
	}
	alone := hdr.New(1, 3_600_000_000, 3)
	_ = alone.RecordValue(1)
	nan := []plot.Point{{Step: 8, Value: math.NaN()}, {Step: 16, Value: math.Inf(1)}}
	return map[string]*plot.Figure{
		"curves": plot.Curves("sms-spam", loss, eval, lr), "curves_nan": plot.Curves("diverged", nan, nil, nil),
		"curves_one_point": plot.Curves("short", loss[:1], eval[:1], lr[:1]), "curves_none": plot.Curves("", nil, nil, nil),
		"overlay":            plot.Overlay("two sides", "loss", []plot.Group{{"ours", [][]plot.Point{loss, loss[:90]}}, {"peer", [][]plot.Point{loss[1:]}}}),
		"overlay_nan":        plot.Overlay("diverged", "loss", []plot.Group{{"ours", [][]plot.Point{nan}}, {"peer", nil}}),
		"overlay_none":       plot.Overlay("", "", nil),
		"confusion":          plot.Confusion("test rows", two.Classes, [][]int{{960, 6}, {4, 145}}),
		"confusion_one":      plot.Confusion("one class in test", two.Classes, [][]int{{10, 0}, {0, 0}}),
		"confusion_many":     plot.Confusion("forty classes", names, square(40)),
		"confusion_none":     plot.Confusion("", nil, nil),
		"pr":                 two.PR("test rows"),
		"pr_many":            many.PR("eight classes"),
		"pr_one_class":       one.PR("one class"),
		"pr_large":           predictions(rng, 2, 30_000).PR("thirty thousand rows"),
		"pr_none":            plot.Predictions{Classes: []string{"a", "b"}}.PR("no rows"),
		"roc":                two.ROC("test rows"),
		"roc_many":           many.ROC("eight classes"),
		"roc_one_class":      one.ROC("one class"),
		"roc_none":           plot.Predictions{Classes: []string{"a", "b"}}.ROC("no rows"),
		"reliability":        two.Reliability("test rows"),
		"reliability_one":    one.Reliability("one class"),
		"reliability_none":   plot.Predictions{Classes: []string{"a", "b"}}.Reliability("no rows"),
		"lengths":            plot.Lengths("training rows", lengths, truncated, 128),
		"lengths_equal":      plot.Lengths("all equal", []int{0, 0, 0, 0, 0, 3}, 0, 128),
		"lengths_none":       plot.Lengths("", nil, 0, 128),
		"lengths_all_cut":    plot.Lengths("all cut", []int{0, 0, 7}, 7, 2),
		"latencies":          plot.Latencies("load test", latencies, 250*time.Millisecond),
		"latencies_no_limit": plot.Latencies("one request", alone, 0),
		"latencies_none":     plot.Latencies("", nil, time.Second),
	}
}

func square(n int) [][]int {
	out := make([][]int, n)
	for i := range out {
		out[i] = make([]int, n)
		out[i][i], out[i][(i+1)%n] = 90, 10
	}
	return out
}

// predictions are rows whose class mostly, but not always, gets the highest probability.
func predictions(rng *rand.Rand, classes, rows int) plot.Predictions {
	var p plot.Predictions
	for i := range classes {
		p.Classes = append(p.Classes, string(rune('a'+i)))
	}
	for range rows {
		label := rng.IntN(classes)
		probabilities, sum := make([]float64, classes), 0.0
		for j := range probabilities {
			probabilities[j] = math.Exp(rng.NormFloat64() * 1.5)
			if j == label {
				probabilities[j] *= 8
			}
			sum += probabilities[j]
		}
		for j := range probabilities {
			probabilities[j] /= sum
		}
		p.Labels, p.Probabilities = append(p.Labels, label), append(p.Probabilities, probabilities)
	}
	return p
}

// TestFigures encodes every picture: opaque, and not blank. With DURATUNE_PLOTS set to a
// folder the pictures are kept there, to be looked at.
func TestFigures(t *testing.T) {
	for name, f := range figures() {
		t.Run(name, func(t *testing.T) {
			b, err := f.PNG()
			if err != nil {
				t.Fatal(err)
			}
			img, err := png.Decode(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			if dark := examine(t, img); dark < 500 {
				t.Errorf("only %d dark pixels: a blank picture", dark)
			}
			if len(b) > 400<<10 {
				t.Errorf("%d KB are too many", len(b)>>10)
			}
			if dir := os.Getenv("DURATUNE_PLOTS"); dir != "" {
				if err := os.WriteFile(filepath.Join(dir, name+".png"), b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// examine counts dark pixels and fails on one that is not opaque: it would vanish on a page of its own colour.
func examine(t *testing.T, img image.Image) (dark int) {
	t.Helper()
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y++ {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x++ {
			r, g, b, a := img.At(x, y).RGBA()
			if a != 0xffff {
				t.Fatalf("pixel %d,%d is not opaque", x, y)
			}
			if r+g+b < 3*0x6000 {
				dark++
			}
		}
	}
	return dark
}
