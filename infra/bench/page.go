package main

import (
	"bufio"
	_ "embed" // for the page
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"
	"time"

	"github.com/duratune/duratune/internal/plot"
	"github.com/duratune/duratune/internal/train"
)

// publish draws the loss curves and writes the page, named as torchtitan names its own: theme_hardware_date_entity.
func (b *accuracy) publish(dir string) error {
	name := fmt.Sprintf("accuracy_minilm_sms_%dcpu_%s_duratune", runtime.NumCPU(), time.Now().Format("2006-01"))
	groups := []plot.Group{{Name: "Duratune"}, {Name: "Trainer"}}
	for _, p := range b.pairs {
		groups[0].Runs, groups[1].Runs = append(groups[0].Runs, p.Ours.Loss), append(groups[1].Runs, p.Peer.Loss)
	}
	title := fmt.Sprintf("MiniLM on SMS Spam: %d runs of each side, and their means", len(b.pairs))
	png, err := plot.Overlay(title, "training loss", groups).PNG()
	if err != nil {
		return err
	}
	page, err := template.New("page").Funcs(template.FuncMap{
		"percent": func(v float64) string { return fmt.Sprintf("%.2f", 100*v) },
		"points":  func(v float64) string { return fmt.Sprintf("%+.2f", v) },
	}).Parse(pageText)
	if err != nil {
		return err
	}
	var text strings.Builder
	if err := page.Execute(&text, b.facts(name)); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".md"), []byte(text.String()), 0o644)
}

// messages are those of the whole collection.
const messages = 5574

// facts are what the page is filled with.
type facts struct {
	Name, Date, CPU string
	Cores, Threads  int // threads: of a run
	Whole           bool
	Command         string // that writes the page again
	Set             settings
	Steps           int64
	TrainSpam       int
	TestSpam        int
	Identity        train.Identity
	Versions        map[string]string
	Go              string
	Pairs           []pair
	Mean            line
	EvalOurs        float64 // mean loss on the test rows
	EvalPeer        float64
	Deviation       struct{ Ours, Peer, F1Ours, F1Peer float64 } // between the seeds, in points
	LossGap         float64                                      // mean distance of the two mean curves, a window
	LossLevel       float64                                      // mean of the peer's mean curve
	Within          bool                                         // accuracy and F1 are within 0.3 points
}

func (b *accuracy) facts(name string) facts {
	f := facts{
		Name: name, Date: time.Now().Format(time.DateOnly), CPU: cpuName(), Cores: runtime.NumCPU(), Threads: runtime.GOMAXPROCS(0), Set: b.settings,
		Whole: len(b.train)+len(b.test) == messages, Command: b.settings.command(),
		Steps: b.plan(0).TotalSteps(), TrainSpam: b.train.positives(), TestSpam: b.test.positives(),
		Identity: b.pairs[0].Ours.identity, Versions: b.pairs[0].Peer.versions, Go: runtime.Version(), Pairs: b.pairs, Mean: b.mean(),
	}
	for _, s := range []struct {
		of   func(pair) float64
		into *float64
	}{
		{func(p pair) float64 { return p.Ours.Accuracy }, &f.Deviation.Ours}, {func(p pair) float64 { return p.Peer.Accuracy }, &f.Deviation.Peer},
		{func(p pair) float64 { return p.Ours.F1 }, &f.Deviation.F1Ours}, {func(p pair) float64 { return p.Peer.F1 }, &f.Deviation.F1Peer},
	} {
		var values []float64
		for _, p := range b.pairs {
			values = append(values, 100*s.of(p))
		}
		*s.into = deviation(values)
	}
	for _, p := range b.pairs {
		f.EvalOurs += p.Ours.EvalLoss / float64(len(b.pairs))
		f.EvalPeer += p.Peer.EvalLoss / float64(len(b.pairs))
	}
	f.LossGap, f.LossLevel = b.lossGap()
	f.Within = within(f.Mean.Points) && within(f.Mean.F1Points)
	return f
}

func within(points float64) bool { return points <= 0.3 && points >= -0.3 }

// lossGap is the mean absolute distance between the two sides' mean curves, and the peer's mean level.
func (b *accuracy) lossGap() (gap, level float64) {
	windows := len(b.pairs[0].Ours.Loss)
	for w := range windows {
		var d float64
		for _, p := range b.pairs {
			d += (p.Ours.Loss[w].Value - p.Peer.Loss[w].Value) / float64(len(b.pairs))
			level += p.Peer.Loss[w].Value / float64(len(b.pairs)*windows)
		}
		gap += max(d, -d) / float64(windows)
	}
	return gap, level
}

// cpuName is what the system calls the processor.
func cpuName() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "model name"); ok {
			return strings.TrimLeft(name, "\t: ")
		}
	}
	return runtime.GOARCH
}

//go:embed page.md.tmpl
var pageText string
