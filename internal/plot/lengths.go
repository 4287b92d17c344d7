package plot

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
	"gonum.org/v1/plot"
)

// Lengths draws how many tokens the rows have once they are cut at limit, special tokens included: rows[n] of them have
// n. It says what share was cut; those stand at the limit.
func Lengths(title string, rows []int, truncated, limit int) *Figure {
	const x, y = "tokens a row, special tokens included", "rows"
	total := 0
	for _, k := range rows {
		total += k
	}
	if total == 0 {
		return single(note(title, x, y, "no rows"), 640, 360)
	}
	longest := len(rows) - 1
	width := max(1, (longest+59)/60) // at most about 60 bars
	counts := make([]float64, longest/width+1)
	for n, k := range rows {
		counts[n/width] += float64(k)
	}
	var bars []bar
	for i, c := range counts {
		bars = append(bars, bar{float64(i*width) - 0.5, float64((i+1)*width) - 0.5, c})
	}
	share := 100 * float64(truncated) / float64(total)
	p := newPlot(fmt.Sprintf("%s\n%d of %d rows truncated (%.2f %%)", title, truncated, total, share), x, y)
	p.Add(histogram{bars, 0})
	p.X.Min, p.X.Max = 0, float64(max(longest, limit))+float64(width)
	top := slices.Max(counts) * 1.05
	p.Y.Min, p.Y.Max = 0, top*headroom
	p.Y.Tick.Marker = plot.TickerFunc(whole)
	upright(p, float64(limit)+0.5, top, hue(1), "max_length "+strconv.Itoa(limit))
	p.Legend.Top, p.Legend.XOffs = true, -6
	return single(p, 640, 360)
}

// headroom is how much taller than its bars a histogram is, so that the legend has a place of its own.
const headroom = 1.3

// perDecade is how many bars a factor of ten in latency has.
const perDecade = 20

// Latencies draws a histogram of microseconds over a logarithmic axis, with percentiles and, unless it is 0, the limit
// of the 99th.
func Latencies(title string, h *hdr.Histogram, limit time.Duration) *Figure {
	const x, y = "latency from the intended arrival, ms", "requests"
	if h == nil || h.TotalCount() == 0 {
		return single(note(title, x, y, "no request was answered"), 640, 360)
	}
	index := func(us float64) int { return int(math.Floor(math.Log10(us/1000) * perDecade)) }
	edge := func(i int) float64 { return math.Pow(10, float64(i)/perDecade) }
	counts := map[int]float64{}
	for _, b := range h.Distribution() {
		if b.Count > 0 {
			counts[index(float64(b.From+b.To)/2)] += float64(b.Count)
		}
	}
	p := newPlot(title, x, y)
	var bars []bar
	lo, hi, most := math.MaxInt, math.MinInt, 0.0
	for i, c := range counts {
		bars = append(bars, bar{edge(i), edge(i + 1), c})
		lo, hi, most = min(lo, i), max(hi, i), max(most, c)
	}
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.TickerFunc(decades)
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = edge(lo-2), edge(hi+3), 0, most*1.05*headroom
	if ms := limit.Seconds() * 1000; ms > 0 {
		p.X.Min, p.X.Max = min(p.X.Min, ms/1.2), max(p.X.Max, ms*1.2)
	}
	p.Y.Tick.Marker = plot.TickerFunc(whole)
	p.Add(histogram{bars, 0})
	for i, q := range []float64{50, 95, 99} {
		ms := float64(h.ValueAtQuantile(q)) / 1000
		upright(p, max(ms, p.X.Min), most*1.05, hue([]int{2, 4, 1}[i]), fmt.Sprintf("p%.0f %.4g ms", q, ms))
	}
	if limit > 0 {
		upright(p, limit.Seconds()*1000, most*1.05, ink, fmt.Sprintf("limit of p99 %.4g ms", limit.Seconds()*1000))
	}
	p.Legend.Top, p.Legend.XOffs = true, -6
	return single(p, 640, 360)
}

// decades puts labels at 1, 2 and 5 times each power of ten, and small ticks between.
func decades(lo, hi float64) []plot.Tick {
	var out []plot.Tick
	for e := math.Floor(math.Log10(lo)); e <= math.Ceil(math.Log10(hi)); e++ {
		for m := 1.0; m < 10; m++ {
			v := m * math.Pow(10, e)
			if v < lo || v > hi {
				continue
			}
			t := plot.Tick{Value: v}
			if m == 1 || m == 2 || m == 5 {
				t.Label = strconv.FormatFloat(v, 'g', 6, 64)
			}
			out = append(out, t)
		}
	}
	return out
}
